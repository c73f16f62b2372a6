"""The health check of a container: `python -m services.common.healthcheck`."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.auth_api.settings import SHIPPED_USERS
from tests.support import call, free_ports, program, wait_until


def healthcheck(port: int, host: str = "") -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "HTTP_PORT": str(port), "HTTP_HOST": host}
    return call([sys.executable, "-m", "services.common.healthcheck"], environ)


@contextlib.contextmanager
def healthy(name: str, folder: Path, host: str = "127.0.0.1", **more: str) -> Iterator[int]:
    """The port of a service that is healthy."""
    port = free_ports(1)
    environ = {
        **os.environ,
        "HTTP_HOST": host, "HTTP_PORT": str(port), "JWT_SECRET": "s" * 32, "PLATFORM_STATE": "",
        "PSP_URL": "http://127.0.0.1:1", **more,
    }  # fmt: skip
    command = [sys.executable, "-m", f"services.{name}"]
    with program(command, environ=environ, output=folder / "log"):
        wait_until(lambda: healthcheck(port, host).returncode == 0, what="its health")
        yield port


def test_a_service_whose_check_fails(tmp_path: Path) -> None:
    """A failing check gives exit code 1, and the output names it."""
    users = tmp_path / "users.json"
    shutil.copy(SHIPPED_USERS, users)
    with healthy("auth_api", tmp_path, USERS_FILE=str(users)) as port:
        users.write_text("[{")
        done = healthcheck(port)
    document = '503 {"status":"fail","checks":{"users":"fail"}}\n'
    assert (done.returncode, done.stdout, done.stderr) == (1, document, "")


def test_no_service() -> None:
    """Without a service, the exit code is 1 and the output one message."""
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
    with healthy(name, tmp_path, host, REDIS_URL=f"redis://127.0.0.1:{redis_port}/0"):
        pass
