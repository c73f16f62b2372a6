"""A PSP with the responses that a test sets, and a client of it."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from services.psp_connector.psp import Charge
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import StripePsp

CHARGE = Charge("8b7e8b26-0000-4000-8000-000000000001", "req-1", 1250, "USD", "pm_card_visa")


class Psp(ThreadingHTTPServer):
    """Sends `status`, `headers` and `body` to every request, and records requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections = 0
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes = b"{}"
        self.trickle_seconds = 0.0
        self.seen: list[tuple[str, dict[str, str], dict[str, list[str]]]] = []

    def verify_request(self, *_args: Any) -> bool:
        self.connections += 1
        return True

    def handle_error(self, *_args: Any) -> None:
        """Ignores clients that disconnect, as tests intend."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Psp
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        form = parse_qs(self.rfile.read(length).decode())
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, headers, form))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        if self.server.trickle_seconds:
            self.trickle()
            return
        self.end_headers()
        self.wfile.write(self.server.body)

    def trickle(self) -> None:
        """Sends the response byte by byte: the header or, with a body, only the body."""
        text = b"X-Very-Long: " + b"x" * 1000
        if self.server.body:
            self.end_headers()
            text = self.server.body
        else:
            self.flush_headers()
        for n in range(len(text)):
            self.wfile.write(text[n : n + 1])
            time.sleep(self.server.trickle_seconds)

    do_GET = do_POST  # noqa: N815  http.server's name

    def log_message(self, *_args: Any) -> None:
        pass


def client(url: str, timeout_seconds: float = 5) -> StripePsp:
    return StripePsp(
        ConnectorSettings.read(
            {
                "HTTP_PORT": "1",
                "REDIS_URL": "redis://127.0.0.1:1/0",
                "PSP_URL": url,
                "PSP_API_KEY": "sk_test_of_this_test",
                "PSP_TIMEOUT_SECONDS": str(timeout_seconds),
            }
        )
    )


def error(kind: str, **more: Any) -> dict[str, Any]:
    return {"error": {"type": kind, "message": "no", **more}}
