"""The public contract through the router, as far as `merchant smoke` does not check it.

What a service accepts and refuses in detail is tested in its own folder, and the router's own
refusals in tests/router.
"""

from typing import Any

import pytest

from devtools.catalog import SERVICES
from devtools.merchant.contract import CHECKS
from tests import support
from tests.stack.stack import Stack


def test_smoke_passes(stack: Stack) -> None:
    """`platform run smoke` checks the running stack through the router, and leaves it running."""
    done = stack.platform("run", "smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CHECKS)} passed, 0 failed" in done.stdout
    assert stack.compose("process", "list").returncode == 0, "the socket is still there"
    nowhere = f"http://127.0.0.1:{support.CLOSED_PORT}"
    assert stack.platform("run", "smoke", "--", "--url", nowhere).returncode != 0


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": "WEBSOCKET"}, 400),
        ({"method": "BREW"}, 400),
        ({"method": "QQ"}, 400),
        ({"method": "TRACE"}, 405),
        ({"params": {"x": "x" * 5_000}}, 200),
        ({"params": {"x": "x" * 8_000}}, 414),
        ({"headers": {"X-Big": "x" * 15_000}}, 200),
        ({"headers": {"X-Big": "x" * 17_000}}, 431),
        ({"headers": {f"X-{number}": "x" for number in range(150)}}, 200),
        ({"headers": {f"X-{number}": "x" for number in range(250)}}, 431),
        ({"method": "HEAD"}, 200),
        ({"method": "OPTIONS"}, 200),
    ],
    ids=range(12),
)
def test_every_refusal_is_the_platforms_own(
    stack: Stack, request_: dict[str, Any], status: int
) -> None:
    """No HTTP library's refusal passes unchanged, and only documented limits apply."""
    response = stack.http.request(**{"method": "GET", "url": "/transactions/health"} | request_)
    assert response.status_code == status, response.text
    if status != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["request_id"] == response.headers["x-request-id"]


def test_nothing_listens_beyond_the_loopback(stack: Stack) -> None:
    """Every listening socket of every process is bound to 127.0.0.1."""
    found = []
    for name in SERVICES:
        process = stack.process(name)
        for one in (process, *process.children(recursive=True)):
            found += [c.laddr for c in one.net_connections(kind="inet") if c.status == "LISTEN"]
    assert len(found) >= len(SERVICES)
    assert {address.ip for address in found} == {"127.0.0.1"}
