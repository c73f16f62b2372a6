"""The connector's own address: health and metrics, for whoever runs it."""

from __future__ import annotations

import socket
import threading
import time
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from services.common.web import make_app
from services.psp_connector.metrics import QueueCollector

if TYPE_CHECKING:
    from services.common import store
    from services.common.web import App
    from services.psp_connector.connector import Connector
    from services.psp_connector.metrics import Attempts
    from services.psp_connector.settings import ConnectorSettings

# The main loop comes round five times a second; a health check of Redis may hold it for a second.
_STUCK_SECONDS = 10.0
_CONNECTION_SECONDS_MAX = 5.0


def create_app(
    settings: ConnectorSettings, connector: Connector, client: store.Client, attempts: Attempts
) -> App:
    """Builds the service's HTTP side."""

    def redis_answers() -> None:
        client.ping()

    def loop_turns() -> None:
        if time.monotonic() - connector.last_turn > _STUCK_SECONDS:
            raise TimeoutError

    return make_app(
        {},
        settings,
        checks={"redis": redis_answers, "loop": loop_turns},
        collectors=[attempts, QueueCollector(client)],
    )


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _CONNECTION_SECONDS_MAX

    def log_message(self, *_args: Any) -> None:
        """The app logs its requests itself."""


def serve_in_background(app: App, settings: ConnectorSettings) -> None:
    """Answers on HTTP_PORT from a thread, as long as the process lives.

    A full server would cost another process; this address is asked a few times a minute, by
    whoever runs the stack, and is not reachable through the router.
    """
    kind = _Server6 if ":" in settings.http_host else _Server
    server = make_server(
        settings.http_host, settings.http_port, app, server_class=kind, handler_class=_Handler
    )
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
