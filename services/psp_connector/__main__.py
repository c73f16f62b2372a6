"""`python -m services.psp_connector`: charges queued transactions until a signal."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from typing import TYPE_CHECKING

import structlog

from services.common import logs, store
from services.common.settings import SettingsError, exit_for, read_or_exit
from services.psp_connector.app import create_app, serve_in_background
from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import Breaker
from services.psp_connector.connector import Connector
from services.psp_connector.metrics import Attempts
from services.psp_connector.queue import Queue
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import StripePsp

if TYPE_CHECKING:
    from types import FrameType

    from services.common.web import App

# Above the 200 ms that a queue read blocks; also the longest that Redis may block the main loop.
REDIS_TIMEOUT_SECONDS = 2.0
# Below the 6 s between SIGTERM and SIGKILL in process-compose.yaml.
GRACE_SECONDS = 5.5
# Maximum interval between probes of a PSP that is down.
_PROBE_SECONDS_MAX = 30.0

_log = structlog.get_logger()


def build(settings: ConnectorSettings) -> tuple[Connector, App]:
    """Creates the connector and its HTTP app; nothing connects yet."""
    client = store.connect(settings.redis_url, timeout_seconds=REDIS_TIMEOUT_SECONDS)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    attempts = Attempts()
    first_seconds = settings.psp_backoff_seconds
    connector = Connector(
        Queue(client, settings, name),
        StripePsp(settings),
        Breaker(settings.concurrency, Backoff(first_seconds, _PROBE_SECONDS_MAX)),
        Backoff(first_seconds, settings.psp_backoff_seconds_max),
        concurrency=settings.concurrency,
        attempts_max=settings.psp_attempts_max,
        metrics=attempts,
    )
    return connector, create_app(settings, connector, client, attempts)


def main() -> None:
    """Runs the connector; the first signal drains it, the second kills it."""
    settings = read_or_exit(ConnectorSettings, os.environ)
    logs.configure("psp-connector", settings)
    try:
        connector, app = build(settings)
    except SettingsError as error:
        exit_for(error.faults)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        # A second signal kills the process.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        connector.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    serve_in_background(app, settings)
    logs.announce("working", concurrency=settings.concurrency)
    connector.run()
    unfinished = connector.drain(GRACE_SECONDS)
    _log.info("stopped", unfinished=unfinished)
    sys.stdout.flush()
    # Not sys.exit, which would wait for threads that exceeded the grace period.
    os._exit(0)


if __name__ == "__main__":
    main()
