"""A real router on free ports, and its services."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from devtools.catalog import SERVICES
from tests.http_service import Seen, Service, service_on
from tests.support import ROOT, free_ports, program, wait_until

CONFIG = ROOT / "services/router/Caddyfile"
RESPONSE_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Response:
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def receive(connection: socket.socket) -> Response:
    """The next response on a connection."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return Response(response.status, response.headers, response.read())


@dataclass
class Router:
    """A running router."""

    port: int
    output: Path
    process: subprocess.Popen[bytes]

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=RESPONSE_SECONDS_MAX
        )
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=RESPONSE_SECONDS_MAX)

    def send(self, sent: bytes, *, half_close: bool = False) -> Response:
        """The response to these bytes; with `half_close`, the connection is closed for sending."""
        with self.connect() as connection:
            connection.sendall(sent)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return receive(connection)

    def raw(self, sent: bytes) -> bytes:
        """Returns all bytes until the peer closes."""
        received = b""
        with self.connect() as connection, contextlib.suppress(ConnectionResetError):
            connection.sendall(sent)
            while part := connection.recv(65_536):
                received += part
        return received

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def log_of(self, request_id: str) -> dict[str, Any]:
        """The only access log line of a request."""

        def lines() -> list[dict[str, Any]]:
            return [line for line in self.log() if line.get("request_id") == request_id]

        [found] = wait_until(lines, what=f"the log line of request {request_id}")
        return found


def environment(port: int, state: Path, **more: str) -> dict[str, str]:
    """The router's environment, without HOME."""
    return {
        "PATH": os.environ["PATH"],
        "XDG_CONFIG_HOME": f"{state}-config",
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
    """A healthy router, with its services expected on the next two ports."""
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
        return router.request("GET", "/health").status == 200
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
    assert response.headers["Cache-Control"] == "no-store"
    document = response.json()
    assert set(document) == {"type", "title", "status", "detail", "code", "request_id"}
    assert document["type"] == "about:blank"
    assert response.status == document["status"]
    assert response.headers["X-Request-Id"] == document["request_id"]
    return document["status"], document["code"]
