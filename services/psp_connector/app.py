"""The connector's HTTP app: health and metrics."""

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

# The main loop runs five times a second; a slow Redis may delay it by a few seconds.
_STUCK_SECONDS = 10.0
_CONNECTION_SECONDS_MAX = 5.0


def create_app(
    settings: ConnectorSettings, connector: Connector, client: store.Client, attempts: Attempts
) -> App:
    """Creates the HTTP app."""

    def check_redis() -> None:
        client.ping()

    def check_loop() -> None:
        if time.monotonic() - connector.last_turn > _STUCK_SECONDS:
            raise TimeoutError

    return make_app(
        {},
        settings,
        checks={"redis": check_redis, "loop": check_loop},
        collectors=[attempts, QueueCollector(client)],
    )


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _CONNECTION_SECONDS_MAX

    def log_message(self, *_args: Any) -> None:
        """Does nothing: the app logs its requests."""


def serve_in_background(app: App, settings: ConnectorSettings) -> None:
    """Serves HTTP_PORT from a daemon thread.

    gunicorn would cost another process; this port gets a few requests a minute and is not reachable
    through the router.
    """
    kind = _Server6 if ":" in settings.http_host else _Server
    server = make_server(
        settings.http_host, settings.http_port, app, server_class=kind, handler_class=_Handler
    )
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
