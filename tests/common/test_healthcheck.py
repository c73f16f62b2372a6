"""The health check of a container: `python -m services.common.healthcheck`."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT, free_ports, program, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = b'{"status": "fail", "checks": {"redis": "fail"}}'


class Handler(http.server.BaseHTTPRequestHandler):
    """A service that is healthy or not, as its server's `status` says."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Service)
        self.send_response(self.server.status if self.path == "/health" else 404)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_words: object) -> None:
        """Says nothing."""


class Service(http.server.HTTPServer):
    status = 200


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def healthcheck(port: int, host: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.common.healthcheck"],
        env={**os.environ, "HTTP_PORT": str(port), "HTTP_HOST": host}, cwd=ROOT,
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_exit_code_is_the_health(service: Service, status: int, code: int) -> None:
    """0 for a healthy service, else 1; the output names the failing check."""
    service.status = status
    done = healthcheck(service.server_port)
    assert (done.returncode, done.stdout, done.stderr) == (code, f"{status} {BODY.decode()}\n", "")


def test_no_service() -> None:
    """No service is exit code 1 and a sentence."""
    done = healthcheck(free_ports(1))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("no response: ")


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("auth_api", "127.0.0.2"),
        ("auth_api", "::"),
        ("psp_connector", "0.0.0.0"),
        ("psp_connector", "::1"),
    ],
)
def test_a_service_is_healthy_wherever_it_listens(
    name: str, host: str, tmp_path: Path, redis_port: int
) -> None:
    """A service is healthy at any address, IPv6 included, under gunicorn and in the connector."""
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    port = free_ports(1)
    environ = {
        **os.environ,
        "HTTP_HOST": host, "HTTP_PORT": str(port), "JWT_SECRET": "s" * 32, "PLATFORM_STATE": "",
        "PSP_URL": "http://127.0.0.1:1", "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
    }  # fmt: skip
    command = [sys.executable, "-m", f"services.{name}"]
    with program(command, environ=environ, output=tmp_path / "log"):
        wait_until(lambda: healthcheck(port, host).returncode == 0, what="its health")
