"""The health check of a container: `python -m services.common.healthcheck`."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.auth_api.settings import SHIPPED_USERS
from tests.support import call, free_ports, service


def healthcheck(url: str, host: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "HTTP_PORT": url.rpartition(":")[2], "HTTP_HOST": host}
    return call([sys.executable, "-m", "services.common.healthcheck"], environ)


@pytest.mark.parametrize(("name", "host"), [("auth_api", "::"), ("psp_connector", "::1")])
def test_a_service_is_healthy_wherever_it_listens(
    name: str, host: str, tmp_path: Path, redis_port: int
) -> None:
    """A service is healthy at any address, IPv6 included, under gunicorn and in the connector."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    redis = f"redis://127.0.0.1:{redis_port}/0"
    with service(name, tmp_path, host, REDIS_URL=redis) as (url, _process):
        assert healthcheck(url, host).returncode == 0


def test_a_service_whose_check_fails(tmp_path: Path) -> None:
    """A failing check gives exit code 1, and the output names it."""
    users = tmp_path / "users.json"
    shutil.copy(SHIPPED_USERS, users)
    with service("auth_api", tmp_path, "0.0.0.0", USERS_FILE=str(users)) as (url, _process):
        users.write_text("[{")
        done = healthcheck(url, "0.0.0.0")
    document = '503 {"status":"fail","checks":{"users":"fail"}}\n'
    assert (done.returncode, done.stdout, done.stderr) == (1, document, "")


def test_no_service() -> None:
    """Without a service, the exit code is 1 and the output one message."""
    done = healthcheck(f":{free_ports(1)}", "")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("no response: ")
