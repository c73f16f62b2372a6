"""Logs to standard output, one line an event: JSON for machines, columns for people (LOG_FORMAT).

Under process-compose there is no terminal, so the log files are JSON; `logs` shows them to people.
Every line carries `time` (RFC 3339, UTC), `level`, `service`, `event`; lines about a request or a
transaction carry `request_id` and `transaction_id`. What libraries log through the standard
library comes out in the same form.

Logging never fails or holds up its caller, which may have taken money already: `Output`. A
service whose supervisor was killed works on, unlogged: what it accepted is charged, and the next
start of the stack replaces it (services/preflight/orphans.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
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


class Output:
    """A text stream to a descriptor that drops what cannot be written: no reader, or a full disk.

    A pipe whose reader stands still is waited for once; then lines are dropped until it reads.
    """

    STALL_SECONDS_MAX = 0.5

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stalled = False
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.set_blocking(descriptor, False)

    def write(self, text: str) -> None:
        """Writes the text if it can; never raises."""
        data = text.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            try:
                os.write(self._descriptor, data)
            except BlockingIOError:
                if self._stalled:
                    return
                self._stalled = True
                select.select([], [self._descriptor], [], self.STALL_SECONDS_MAX)
                os.write(self._descriptor, data)
            self._stalled = False

    def flush(self) -> None:
        """Nothing is kept back."""


def configure(service: str, settings: Settings) -> None:
    """Sets up logging of this process; called once, by its entry point."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared = _shared_processors(service)
    output: Any = Output(sys.stdout.fileno())
    structlog.configure(
        processors=[*shared, *_renderers(settings)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
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
        structlog.get_config()["logger_factory"](),
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
