"""An HTTP service in this process: records requests, and responds as a test says."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Seen:
    """A request as it reached the service."""

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Reply:
    """A response; status `None` closes the connection instead."""

    status: int | None = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"{}"
    wait_seconds: float = 0
    interim: int = 0
    """Status of an interim response that comes first."""
    trickle_seconds: float = 0
    """Between two bytes of the body or, without one, of an endless header."""


class Service(ThreadingHTTPServer):
    """Sends `replies` by path, or else `reply`."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.connections = 0
        self.begun = 0
        self.seen: list[Seen] = []
        self.reply = Reply()
        self.replies: dict[str, Reply] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def last(self) -> Seen:
        return self.seen[-1]

    def verify_request(self, *_args: Any) -> bool:
        self.connections += 1
        return True

    def handle_error(self, *_args: Any) -> None:
        """Ignores clients that disconnect, as tests intend."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "gunicorn/23.0.0"
    server: Service

    def respond(self) -> None:
        self.server.begun += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append(Seen(self.command, self.path, self.headers, body))
        reply = self.server.replies.get(self.path.partition("?")[0], self.server.reply)
        time.sleep(reply.wait_seconds)
        if reply.status is None:
            self.close_connection = True
            return
        if reply.interim:
            self.wfile.write(f"HTTP/1.1 {reply.interim} Interim\r\nLink: x\r\n\r\n".encode())
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("X-Request-Id", self.headers.get("X-Request-Id", ""))
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.trickle_seconds and not reply.body:
            self.flush_headers()
            self._trickle(b"X-Very-Long: " + b"x" * 1000, reply.trickle_seconds)
            return
        self.end_headers()
        if reply.trickle_seconds:
            self._trickle(reply.body, reply.trickle_seconds)
        elif self.command != "HEAD":
            self.wfile.write(reply.body)

    def _trickle(self, text: bytes, seconds: float) -> None:
        for n in range(len(text)):
            self.wfile.write(text[n : n + 1])
            time.sleep(seconds)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_CONNECT = respond  # noqa: N815

    def log_message(self, *_args: Any) -> None:
        """Prints nothing."""


@contextlib.contextmanager
def service_on(port: int = 0) -> Iterator[Service]:
    with Service(port) as service:
        threading.Thread(target=service.serve_forever, args=(0.005,), daemon=True).start()
        yield service
        service.shutdown()
