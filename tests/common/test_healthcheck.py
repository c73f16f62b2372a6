"""The health check of a container: `python -m services.common.healthcheck`."""

import socket

import pytest
import structlog

from services.common import healthcheck, worker
from services.common.settings import HttpSettings
from services.common.web import make_app
from tests.support import free_ports

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
    """The result is 0 for any HTTP_HOST; without a service or with a failing check, 1 and why."""
    broken = False

    def check() -> None:
        assert not broken

    settings = HttpSettings(http_port=free_ports(1), http_host=listens_at)
    monkeypatch.setenv("HTTP_HOST", configured)
    monkeypatch.setenv("HTTP_PORT", str(settings.http_port))
    assert healthcheck.main() == 1
    assert capsys.readouterr().out.startswith("no response: ")
    app = make_app({}, settings, checks={"users": check})
    worker._serve_in_background(app, settings)  # noqa: SLF001
    assert healthcheck.main() == 0
    broken = True
    capsys.readouterr()
    # Other tests of the same process may leave logging at its defaults, which print.
    with structlog.testing.capture_logs():
        assert healthcheck.main() == 1
    assert capsys.readouterr().out == '503 {"status":"fail","checks":{"users":"fail"}}\n'
