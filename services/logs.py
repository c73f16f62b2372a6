"""Logs to standard output, one line an event: JSON for machines, columns for people (LOG_FORMAT).

Under process-compose there is no terminal, so the log files are JSON; `logs` shows them to people.
Every line carries `time` (RFC 3339, UTC), `level`, `service`, `event`; lines about a request or a
transaction carry `request_id` and `transaction_id`. What libraries log through the standard
library comes out in the same form.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import structlog

from services import console

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from services.settings import Settings


# Without the local variables: they could hold a password.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure(service: str, settings: Settings) -> None:
    """Sets up logging of this process; called once, by its entry point."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared = _shared_processors(service)
    structlog.configure(
        processors=[*shared, *_renderers(settings)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(settings),
            ],
        )
    )
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    # These tell of every connection or worker at INFO; our own lines say it already.
    for noisy in ("gunicorn.error", "httpx", "stripe", "urllib3", "watchfiles"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def announce(event: str, **fields: Any) -> None:
    """Logs that a process is ready, whatever LOG_LEVEL is: process-compose waits for it."""
    unfiltered = structlog.wrap_logger(
        structlog.WriteLogger(sys.stdout),
        structlog.get_config()["processors"],
        wrapper_class=structlog.BoundLogger,
    )
    unfiltered.info(event, **fields)


def _shared_processors(service: str) -> list[Processor]:
    def add_service(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {"service": service, **event}

    return [
        add_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]


def _renderers(settings: Settings) -> list[Processor]:
    if settings.log_format == "json":
        return [_TRACEBACKS, structlog.processors.JSONRenderer()]
    colours = console.shows_colours(sys.stdout, os.environ)

    def for_people(_logger: Any, _method: str, event: EventDict) -> str:
        return console.render(event, colours=colours)

    # This one never shows local variables.
    return [structlog.processors.format_exc_info, for_people]
