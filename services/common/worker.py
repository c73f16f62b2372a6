"""Runs a process that works until a signal, with health and metrics served from a thread."""

import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from socketserver import ThreadingMixIn
from types import FrameType
from typing import Any, NoReturn, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog

from services.common import logs, tracing
from services.common.settings import HttpSettings, HttpSettingsT, exit_if_bad
from services.common.web import App

# Below the 6 s between SIGTERM and SIGKILL in process-compose.yaml.
GRACE_SECONDS = 5.5
_CONNECTION_SECONDS_MAX = 5.0
# Request line and headers; wsgiref itself takes minutes for some MB of them.
_HEAD_BYTES_MAX = 16 * 1024
# Each takes a thread and a file descriptor, which the worker needs for its work.
_CONNECTIONS_MAX = 64

_log = structlog.get_logger()


class Worker(Protocol):
    """A process's work: a loop that a signal stops."""

    def run(self) -> None:
        """Works until `stop` is called."""

    def stop(self) -> None:
        """Makes `run` return soon; called from a signal handler."""

    def drain(self, seconds: float) -> int:
        """Finishes work in flight within `seconds`; returns the number of unfinished items."""


def run(
    name: str, kind: type[HttpSettingsT], build: Callable[[HttpSettingsT], tuple[Worker, App]]
) -> NoReturn:
    """Reads the settings and runs the worker; the first signal drains it, the second kills it.

    Exits with 78 if a setting is invalid.
    """
    with exit_if_bad():
        settings = kind.read(os.environ)
        logs.configure(name, settings)
        worker, app = build(settings)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        worker.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    tracing.start()
    try:
        _serve_in_background(app, settings)
    except OSError as error:
        _log.error("cannot listen", port=settings.http_port, reason=str(error))
        sys.exit(1)
    logs.announce("listening", address=f"{settings.http_host}:{settings.http_port}")
    worker.run()
    unfinished = worker.drain(GRACE_SECONDS)
    _log.info("stopped", unfinished=unfinished)
    tracing.stop()
    sys.stdout.flush()
    logs.drain()
    # Not sys.exit, which would wait for threads that exceeded the grace period.
    os._exit(0)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], *args: Any, **more: Any) -> None:
        self._free = threading.Semaphore(_CONNECTIONS_MAX)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, *args, **more)

    def verify_request(self, *_args: Any) -> bool:
        """Whether a connection is served; above _CONNECTIONS_MAX it is closed."""
        return self._free.acquire(blocking=False)

    def process_request(self, *args: Any) -> None:
        """Starts a thread that serves a connection."""
        try:
            super().process_request(*args)
        except BaseException:  # too many threads
            self._free.release()
            raise

    def process_request_thread(self, *args: Any) -> None:
        """Serves a connection."""
        try:
            super().process_request_thread(*args)
        finally:
            self._free.release()

    def handle_error(self, *_args: Any) -> None:
        """Logs one line instead of a traceback, as for a client that sends half a request."""
        _log.info("connection failed", reason=repr(sys.exception()))


class _Handler(WSGIRequestHandler):
    timeout = _CONNECTION_SECONDS_MAX

    def setup(self) -> None:
        """Reads the request's head, or nothing if it is too long or comes too slowly."""
        super().setup()
        self.rfile.close()
        deadline = time.monotonic() + _CONNECTION_SECONDS_MAX
        head, is_whole = b"", False
        while not is_whole and len(head) < _HEAD_BYTES_MAX and time.monotonic() < deadline:
            data = self.connection.recv(_HEAD_BYTES_MAX - len(head))
            if not data:
                break
            head += data
            is_whole = b"\r\n\r\n" in head
        self.rfile = io.BytesIO(head if is_whole else b"")

    def log_message(self, *_args: Any) -> None:
        """Does nothing: the app logs its requests."""


def _serve_in_background(app: App, settings: HttpSettings) -> None:
    """Serves HTTP_PORT from a thread: gunicorn would fork a process for these few requests."""
    server = make_server(
        settings.http_host, settings.http_port, app, server_class=_Server, handler_class=_Handler
    )
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
