"""The health check of a container: `python -m services.common.healthcheck`."""

import os
import socket
import sys

import pytest

from services.common import healthcheck, worker
from services.common.settings import HttpSettings
from services.common.web import make_app
from tests.support import call, free_ports

V6 = ("::1", "::") if socket.has_dualstack_ipv6() else ()


@pytest.mark.parametrize(
    ("listens_at", "configured"),
    [("0.0.0.0", "0.0.0.0"), ("0.0.0.0", ""), *((host, host) for host in V6)],
)
def test_a_service_is_healthy_until_a_check_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    listens_at: str,
    configured: str,
) -> None:
    """The result is 0 for any HTTP_HOST, then 1 with the failing check in the output."""
    broken = False

    def check() -> None:
        assert not broken

    settings = HttpSettings(http_port=free_ports(1), http_host=listens_at)
    app = make_app({}, settings, checks={"users": check})
    worker._serve_in_background(app, settings)  # noqa: SLF001
    monkeypatch.setenv("HTTP_HOST", configured)
    monkeypatch.setenv("HTTP_PORT", str(settings.http_port))
    assert healthcheck.main() == 0
    broken = True
    capsys.readouterr()
    assert healthcheck.main() == 1
    assert capsys.readouterr().out == '503 {"status":"fail","checks":{"users":"fail"}}\n'


def test_no_service() -> None:
    """Without a service, the exit code is 1 and the output one message."""
    environ = {**os.environ, "HTTP_HOST": "", "HTTP_PORT": str(free_ports(1))}
    done = call([sys.executable, "-m", "services.common.healthcheck"], environ)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("no response: ")
