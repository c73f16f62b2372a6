"""A real router on free ports, and services that record requests."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from devtools.catalog import SERVICES
from tests.support import ROOT, free_ports, program, wait_until

CONFIG = ROOT / "services/router/Caddyfile"
ANSWER_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Seen:
    """A request as it reached a service."""

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Answer:
    """A service's response; status `None` closes the connection instead."""

    status: int | None = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"{}"
    wait_seconds: float = 0


@dataclass
class Service:
    """A service's recorded requests, and its responses by path."""

    port: int
    seen: list[Seen] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)
    connections: list[socket.socket] = field(default_factory=list)

    def last(self) -> Seen:
        return self.seen[-1]

    def hang_up(self) -> None:
        """Closes keep-alive connections, as a stopping process does."""
        self.stopped.set()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "gunicorn/23.0.0"
        timeout = ANSWER_SECONDS_MAX

        def setup(self) -> None:
            super().setup()
            service.connections.append(self.connection)

        def handle_one_request(self) -> None:
            with contextlib.suppress(OSError):
                super().handle_one_request()

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            service.seen.append(Seen(self.command, self.path, self.headers, body))
            answer = service.answers.get(self.path.partition("?")[0], Answer())
            service.stopped.wait(answer.wait_seconds)
            if answer.status is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.send_header("X-Request-Id", self.headers.get("X-Request-Id", ""))
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer  # noqa: N815

        def log_message(self, *_args: Any) -> None:
            """Prints nothing."""

    return Handler


class OneThreadServer(HTTPServer):
    """Serves one connection at a time."""


@contextlib.contextmanager
def service_on(port: int, server: type[HTTPServer] = ThreadingHTTPServer) -> Iterator[Service]:
    service = Service(port)
    handler = _handler(service)
    if server is OneThreadServer:
        # A kept connection would block all others.
        handler.protocol_version = "HTTP/1.0"
    with server(("127.0.0.1", port), handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield service
        finally:
            http_server.shutdown()
            service.hang_up()
            thread.join(ANSWER_SECONDS_MAX)


@dataclass(frozen=True)
class Response:
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Router:
    """A running router."""

    port: int
    output: Path
    process: subprocess.Popen[bytes]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS_MAX)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())

    def raw(self, sent: bytes, *, quiet_seconds: float = ANSWER_SECONDS_MAX) -> bytes:
        """Everything received until the end, or until silence for that long."""
        with self.connect() as connection:
            connection.sendall(sent)
            return read_all(connection, quiet_seconds)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS_MAX)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def log_of(self, request_id: str) -> dict[str, Any]:
        """The only access log line of a request."""

        def lines() -> list[dict[str, Any]]:
            return [line for line in self.log() if line.get("request_id") == request_id]

        found = wait_until(lines, what=f"the log line of request {request_id}")
        assert len(found) == 1
        return found[0]


def read_all(connection: socket.socket, quiet_seconds: float) -> bytes:
    connection.settimeout(quiet_seconds)
    received = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while part := connection.recv(65_536):
            received += part
    return received


def environment(port: int, state: Path, **more: str) -> dict[str, str]:
    """The router's environment, without HOME."""
    return {
        "PATH": os.environ["PATH"],
        "XDG_CONFIG_HOME": str(state),
        "HTTP_PORT": str(port),
        **{
            f"{service.variable}_ADDRESS": f"127.0.0.1:{port + service.port_offset}"
            for service in SERVICES.values()
            if service.route
        },
        "CADDY_STATE": str(state),
        **more,
    }


@contextlib.contextmanager
def router_on(folder: Path, port: int, config: Path = CONFIG, **more: str) -> Iterator[Router]:
    """A healthy router, with its services on the next two ports."""
    (folder / "cwd").mkdir()
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]
    environ = environment(port, folder / "state", **more)
    output = folder / "router.log"
    with program(command, environ=environ, output=output, cwd=folder / "cwd") as process:
        router = Router(port, output, process)
        wait_until(lambda: _healthy(router), what=f"the router on port {port}")
        yield router


def _healthy(router: Router) -> bool:
    assert router.process.poll() is None, router.output.read_text()
    try:
        return router.ask("GET", "/health").status == 200
    except OSError:
        return False


@dataclass
class Platform:
    """A router with both its services."""

    router: Router
    auth: Service
    core: Service

    def seen(self) -> list[Seen]:
        return self.auth.seen + self.core.seen


@contextlib.contextmanager
def platform_in(folder: Path, config: Path = CONFIG, **more: str) -> Iterator[Platform]:
    port = free_ports(3)
    with (
        service_on(port + 1) as auth,
        service_on(port + 2) as core,
        router_on(folder, port, config, **more) as router,
    ):
        yield Platform(router, auth, core)


def problem(response: Response) -> tuple[int, str]:
    """Status and code of a problem document, after validating it."""
    assert response.headers["Content-Type"] == "application/problem+json"
    document = response.json()
    assert set(document) == {"type", "title", "status", "detail", "code", "request_id"}
    assert document["type"] == "about:blank"
    assert response.status == document["status"]
    assert response.headers["X-Request-Id"] == document["request_id"]
    return document["status"], document["code"]


def parse(received: bytes) -> Response:
    """The single response on a raw connection."""
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, _, lines = head.partition(b"\r\n")
    headers = http.client.parse_headers(io.BytesIO(lines + b"\r\n\r\n"))
    return Response(int(status_line.split()[1]), headers, body)
