"""Which paths and hosts reach which service."""

from pathlib import Path

import pytest

from tests.http_service import Reply
from tests.router.helpers import Platform, Router, platform_in, problem


@pytest.mark.parametrize(
    ("requested", "forwarded"),
    [
        ("/auth/token", "/token"),
        ("/auth/health", "/health"),
        ("/auth", "/"),
        ("/auth/", "/"),
        ("/auth?a=b", "/?a=b"),
        ("/transactions", "/"),
        ("/transactions/", "/"),
        ("/transactions/0b6f4b6e-6f0e-4c3e-9d0e", "/0b6f4b6e-6f0e-4c3e-9d0e"),
        ("/transactions?limit=5&cursor=a%2Fb//..", "/?limit=5&cursor=a%2Fb//.."),
        ("/transactions/transactions", "/transactions"),
    ],
)
def test_a_service_does_not_see_its_prefix(
    platform: Platform, requested: str, forwarded: str
) -> None:
    """The prefix selects the service and is removed; query and body pass unchanged."""
    services = [platform.auth, platform.core]
    if requested.startswith("/transactions"):
        services.reverse()
    assert platform.router.request("POST", requested, b'{"amount": 1}').status == 200
    assert [(seen.path, seen.body) for seen in services[0].seen] == [(forwarded, b'{"amount": 1}')]
    assert services[1].seen == []


OTHER_PATHS = """
/ /nothing /authx /auth. /AUTH/token /Transactions /transactionsfoo /health/ /health/x /metrics
//auth/token /auth//token /auth/../transactions /auth/%2e%2e/transactions
/auth/x/../../transactions /./auth/token /auth%2ftoken /auth/to%6ben /transactions//health
/transactions/;/health /transactions/a%00b /transactions/a\\b *
"""
METRICS = """
/metrics /metrics/ /metrics?x=1 /metrics/x /METRICS //metrics /./metrics /x/../metrics /%6detrics
/metrics%2f %2fmetrics /metrics;x /metrics%00
"""


@pytest.mark.parametrize(
    "path",
    [
        *OTHER_PATHS.split(),
        *(f"/{prefix}{rest}" for prefix in ("auth", "transactions") for rest in METRICS.split()),
    ],
)
def test_any_other_path_is_404(platform: Platform, path: str) -> None:
    """A path outside the contract reaches no service in any spelling, and metrics are private."""
    assert problem(platform.router.request("GET", path)) == (404, "not-found")
    assert platform.seen() == []


@pytest.mark.parametrize("host", ["platform.localhost:8000", "127.0.0.1", "LOCALHOST", "[::1]:1"])
def test_health_under_each_name(router: Router, host: str) -> None:
    """The router answers its own health check, under each local name; it is read-only."""
    for method, path, body in (
        ("GET", "/health?x", b'{"status":"pass"}'),
        ("HEAD", "/health", b""),
    ):
        response = router.request(method, path, headers={"Host": host})
        assert (response.status, response.body) == (200, body)
        assert response.headers["Content-Type"] == "application/health+json"
        assert response.headers["Cache-Control"] == "no-store"
    response = router.request("POST", "/health", b"{}")
    assert problem(response) == (405, "method-not-allowed")
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/health", "/auth/token", "/nothing"])
@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.7:8000", "a,b"])
def test_a_foreign_host_is_misdirected(platform: Platform, host: str, path: str) -> None:
    """A rebound name (DNS rebinding) gets 421 everywhere, even for the health check."""
    response = platform.router.request("GET", path, headers={"Host": host})
    assert problem(response) == (421, "misdirected-request")
    assert platform.seen() == []


def test_allowed_hosts(tmp_path: Path) -> None:
    """ALLOWED_HOSTS adds names; a service gets `localhost`, and the client's as forwarded."""
    with platform_in(tmp_path, ALLOWED_HOSTS="pay.example www.example localhost") as platform:
        for host in ("pay.example", "WWW.example:443"):
            assert platform.router.request("GET", "/auth/x", headers={"Host": host}).status == 200
            headers = platform.auth.last().headers
            assert (headers["Host"], headers["X-Forwarded-Host"]) == ("localhost", host)
        response = platform.router.request("GET", "/auth/x", headers={"Host": "example"})
        assert problem(response) == (421, "misdirected-request")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/42", "/transactions/42"),
        ("https://other.example/42", "https://other.example/42"),
        ("//other.example/42", "//other.example/42"),
    ],
)
def test_a_location_gets_the_prefix_back(platform: Platform, location: str, expected: str) -> None:
    """A service's own path in Location gets the service's prefix; other URLs are unchanged."""
    platform.core.replies["/"] = Reply(202, (("Location", location),))
    response = platform.router.request("POST", "/transactions", b"{}")
    assert (response.status, response.headers.get_all("Location")) == (202, [expected])
