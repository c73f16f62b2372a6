"""Logs to standard output, one line per event: structlog's console format or JSON (LOG_FORMAT).

Every line has `time` (RFC 3339, UTC), `level`, `service`, `event`; lines about a request or a
transaction have `request_id` and `transaction_id`, from structlog's context variables. Messages
that libraries send to the standard library's `logging` get the same format.

Logging never raises and blocks only briefly (`Output`), because its caller may already have charged
a card. A service whose supervisor was killed keeps working without logs until the next start of the
stack replaces it (devtools/processes.py).
"""

import array
import contextlib
import fcntl
import json
import logging
import os
import re
import select
import stat
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import structlog
from structlog.dev import Column, ConsoleRenderer
from structlog.typing import EventDict, ExcInfo, Processor

from services.common import tracing
from services.common.clock import rfc3339
from services.common.command import has_colors, printable
from services.common.redaction import redact_all, redactor
from services.common.settings import Settings

# Values with one of these are quoted.
_NEEDS_QUOTES = re.compile(r'[\s"=]|^$')

# No texts of others; process-compose waits for an event.
_OWN_FIELDS = {"time", "level", "service", "event"}

# json.dumps would create an encoder on each call.
_to_json = json.JSONEncoder(default=str).encode

# No local variables: they may contain a password.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


class Output:
    """A text stream that drops lines it cannot write: no reader, or a full disk.

    If a pipe's reader stalls, one write waits up to STALL_SECONDS_MAX; later lines are dropped
    until it reads again. What it cuts off, of a line longer than the pipe, ends with that line.
    """

    STALL_SECONDS_MAX = 0.5

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stalled = False
        self._line_end = b""
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.set_blocking(descriptor, False)

    def write(self, text: str) -> None:
        """Writes or drops the text; never raises."""
        data = self._line_end + text.encode("utf-8", "backslashreplace")
        seconds = 0.0 if self._stalled else self.STALL_SECONDS_MAX
        with contextlib.suppress(OSError):
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                    self._line_end = b"\n" if data else b""
                    self._stalled = False
                except BlockingIOError:
                    began = time.monotonic()
                    self._stalled = not select.select([], [self._descriptor], [], seconds)[1]
                    seconds -= time.monotonic() - began
                    if self._stalled or seconds <= 0:
                        return

    def flush(self) -> None:
        """Does nothing: writes are unbuffered."""


def drain(descriptor: int = 1, seconds_max: float = 0.2) -> None:
    """Waits until the reader of a pipe, by default standard output, has read all of it.

    process-compose closes the pipe as soon as a process that it stops has ended; unread lines are
    lost, such as the one that says how the process ended.
    """
    unread = array.array("i", [0])
    deadline = time.monotonic() + seconds_max
    with contextlib.suppress(OSError):
        while stat.S_ISFIFO(os.fstat(descriptor).st_mode) and time.monotonic() < deadline:
            fcntl.ioctl(descriptor, termios.FIONREAD, unread)
            if not unread[0]:
                return
            time.sleep(0.001)


def configure(service: str, settings: Settings) -> None:
    """Configures logging and tracing for this process; call once, from the entry point."""
    redacted = redactor(settings)
    tracing.configure(service, settings.otel_exporter_otlp_endpoint, redacted)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared, renderers = _shared_processors(service), _renderers(settings, redacted)
    output: Any = Output(sys.stdout.fileno())
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _redacting_event(redacted)],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda thread: _log_uncaught(*thread[:3])
    # At INFO these log every connection or worker, which our own lines cover.
    for noisy in ("gunicorn.error", "httpx", "stripe", "urllib3", "watchfiles"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _log_uncaught(kind: Any, error: Any, trace: Any) -> None:
    """Python's own hook would write the secrets that a text may have."""
    if kind is not SystemExit:
        structlog.get_logger().critical("uncaught exception", exc_info=(kind, error, trace))


def announce(event: str, **fields: Any) -> None:
    """Logs readiness regardless of LOG_LEVEL: process-compose waits for this line."""
    unfiltered = structlog.wrap_logger(
        structlog.get_config()["logger_factory"](),
        structlog.get_config()["processors"],
        wrapper_class=structlog.BoundLogger,
    )
    unfiltered.info(event, **fields)


def _shared_processors(service: str) -> list[Processor]:
    # Not structlog's TimeStamper, which formats the date and the seconds for each line.
    def add_service_and_time(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {"service": service, **event, "time": rfc3339(time.time_ns() // 1000, digits=6)}

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        add_service_and_time,
    ]


def _renderers(settings: Settings, redacted: Callable[[str], str]) -> list[Processor]:
    if settings.log_format == "json":
        return [
            _TRACEBACKS,
            _redacting(lambda _logger, _method, event: _to_json(event), redacted),
        ]
    console = ConsoleRenderer(
        columns=_columns(has_colours=has_colors(sys.stdout, os.environ)),
        exception_formatter=structlog.dev.plain_traceback,  # they are formatted already
        sort_keys=False,
    )
    return [
        _ids_last,
        structlog.processors.ExceptionRenderer(_traceback),
        _redacting(console, redacted),
    ]


def _redacting(render: Processor, redacted: Callable[[str], str]) -> Processor:
    """Renders a line without secrets: what a library logs may have come from a remote server.

    Values are redacted, since a line of JSON might no longer be one; the line tells if they must.
    """

    def redacting(logger: Any, method: str, event: EventDict) -> Any:
        line = render(logger, method, dict(event))
        if redacted(str(line)) == line:
            return line
        fields = {name: event.pop(name) for name in _OWN_FIELDS & event.keys()}
        return render(logger, method, {**redact_all(event, redacted), **fields})

    return redacting


def _redacting_event(redacted: Callable[[str], str]) -> Processor:
    return lambda _logger, _method, event: {**event, "event": redacted(str(event["event"]))}


def _ids_last(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for name in ("transaction_id", "request_id", "trace_id"):
        if name in event:
            event[name] = event.pop(name)
    return event


def _columns(*, has_colours: bool) -> list[Column]:
    """`2026-11-24T13:19:18.852Z info    core-api      request method=POST path=/ ...`."""
    style = ConsoleRenderer.get_default_column_styles(has_colours)
    levels = ConsoleRenderer.get_default_level_styles(has_colours)
    end = style.reset
    return [
        Column("time", lambda _, time: f"{style.timestamp}{str(time)[:23]}Z{end}"),
        Column("level", lambda _, level: f"{levels.get(str(level), '')}{level!s:7}{end}"),
        Column("service", lambda _, name: f"{style.logger_name}{name!s:13}{end}"),
        Column("event", lambda _, event: f"{style.bright}{printable(str(event))}{end}"),
        Column(
            "", lambda key, value: f"{style.kv_key}{key}{end}={style.kv_value}{_value(value)}{end}"
        ),
    ]


def _value(value: object) -> str:
    """Formats a value as logfmt: quoted unless it is a single printable word."""
    text = value if isinstance(value, str) else _to_json(value)
    is_word = text.isprintable() and not _NEEDS_QUOTES.search(text)
    return text if is_word else _to_json(text)


def _traceback(exc_info: ExcInfo) -> str:
    """An indented traceback without local variables: they may contain a password."""
    lines = "".join(traceback.format_exception(*exc_info)).splitlines()
    return "\n".join(f"    {printable(line)}" for line in lines)
