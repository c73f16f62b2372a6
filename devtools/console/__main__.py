"""`python -m devtools.console`: serves the console until a signal; CONSOLE=off ends it at once."""

import logging
import os
import sys

import structlog

from services.common import logs
from services.common.settings import Settings, exit_if_bad

# Imported, if installed, by python-engineio's clients, which the console does not use: 8 MB and a
# quarter of its start-up time.
_NOT_IMPORTED = ("aiohttp", "requests", "websocket")
# Each may buffer a body of 4 MiB; a browser tab has seven connections, an exporter one.
_CONNECTIONS_MAX = 100
# Payments have priority when CPU time is short.
_NICENESS = 10


def main() -> None:
    """Reads the settings, then serves until a signal."""
    # It receives traces and makes none.
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    with exit_if_bad():
        logs.configure("console", Settings.read(environ))
    if os.environ.get("CONSOLE") == "off":
        structlog.get_logger().info("console disabled", reason="CONSOLE=off")
        return
    os.nice(_NICENESS)
    # Newer versions of FastAPI import it; see services/__init__.py.
    sys.modules.pop("opentelemetry.metrics", None)
    sys.modules.update(dict.fromkeys(_NOT_IMPORTED))  # type: ignore[arg-type]  # fails their import
    from nicegui import ui  # noqa: PLC0415 - slow to import, and not needed where it is off

    from devtools.console.app import build  # noqa: PLC0415
    from devtools.console.guard import OwnUserProtocol  # noqa: PLC0415
    from devtools.console.settings import ConsoleSettings  # noqa: PLC0415
    from devtools.console.spans import FILE, SpanStore  # noqa: PLC0415

    with exit_if_bad():
        settings = ConsoleSettings.read(os.environ)
    build(settings, SpanStore(settings.platform_state / FILE))
    _filter_logs()
    ui.run(
        host="127.0.0.1",
        port=settings.http_port,
        title="console",
        reload=False,
        show=False,
        show_welcome_message=False,
        tailwind=False,
        access_log=False,
        log_config=None,
        uvicorn_logging_level="info",  # for _announce
        workers=1,  # else WEB_CONCURRENCY in `.env`
        limit_concurrency=_CONNECTIONS_MAX,
        http=OwnUserProtocol,
        timeout_graceful_shutdown=1,
    )


def _filter_logs() -> None:
    logging.getLogger("uvicorn.error").addFilter(_announce)
    logging.getLogger("nicegui").addFilter(_has_no_url)


def _announce(record: logging.LogRecord) -> bool:
    """Announces readiness for uvicorn; of its other messages, only warnings and errors pass.

    NiceGUI's own hook runs before the port is open.
    """
    message = record.getMessage()
    if message.startswith("Uvicorn running on "):
        logs.announce("listening", address=message.split()[3])
    return record.levelno >= logging.WARNING


def _has_no_url(record: logging.LogRecord) -> bool:
    """Drops NiceGUI's warning of a page that does not exist: its URL may have a secret."""
    return not record.getMessage().endswith(" not found")


if __name__ == "__main__":
    main()
