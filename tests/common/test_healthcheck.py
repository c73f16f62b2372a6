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


def test_a_service_is_healthy_until_a_check_fails(tmp_path: Path) -> None:
    """Exit code 0 for any HTTP_HOST, then 1 with the failing check in the output."""
    users = tmp_path / "users.json"
    shutil.copy(SHIPPED_USERS, users)
    host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
    with service("auth_api", tmp_path, host, USERS_FILE=str(users)) as (url, _process):
        assert [healthcheck(url, one).returncode for one in (host, "0.0.0.0", "")] == [0, 0, 0]
        users.write_text("[{")
        done = healthcheck(url, host)
    document = '503 {"status":"fail","checks":{"users":"fail"}}\n'
    assert (done.returncode, done.stdout, done.stderr) == (1, document, "")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_the_connector_is_healthy_at_an_ipv6_address(tmp_path: Path, redis_port: int) -> None:
    redis = f"redis://127.0.0.1:{redis_port}/0"
    with service("psp_connector", tmp_path, "::1", REDIS_URL=redis) as (url, _process):
        assert healthcheck(url, "::1").returncode == 0


def test_no_service() -> None:
    """Without a service, the exit code is 1 and the output one message."""
    done = healthcheck(f":{free_ports(1)}", "")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("no response: ")
