"""Headers that pass in both directions, and headers that do not."""

import re

import pytest

from tests.http_service import Reply
from tests.router.helpers import Platform, Router, problem

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GET = b"GET /auth/token HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [
        *((text, True) for text in ("a", "A.b_c-9", "x" * 64)),
        *((text, False) for text in ("", "x" * 65, "a b", 'a"b', "a,b", "{env.PATH}", "ä", "a/b")),
        ("a\r\nX-Request-Id: b", False),
    ],
)
def test_a_safe_request_id_is_kept(platform: Platform, sent: str, *, is_kept: bool) -> None:
    """It reaches the service, the log and, once, the client; an unsafe id is replaced."""
    head = f"X-Request-Id: {sent}\r\n\r\n".encode("latin-1")
    response = platform.router.send(_GET + head)
    [request_id] = response.headers.get_all("X-Request-Id") or []
    assert (request_id == sent, UUID.fullmatch(request_id) is None) == (is_kept, is_kept)
    assert platform.auth.last().headers.get_all("X-Request-Id") == [request_id]
    assert platform.router.log_of(request_id)["status"] == 200


@pytest.mark.parametrize("method", ["GET", "X" * 33])
def test_a_problem_carries_the_request_id(router: Router, method: str) -> None:
    """The router's own errors are in the log by request id, even those before any route."""
    request_id = f"id-{method}"
    response = router.request(method, "/nothing", headers={"X-Request-Id": request_id})
    assert problem(response) in {(404, "not-found"), (405, "method-not-allowed")}
    assert response.json()["request_id"] == request_id
    assert router.log_of(request_id)["status"] == response.status


@pytest.mark.parametrize(
    ("request_line", "host", "status"),
    [
        ("GET /health HTTP/1.0", "", 200),
        ("GET /auth/health HTTP/1.0", "Host:\r\n", 200),
        ("GET /health HTTP/1.0", "Host: evil.example\r\n", 421),
        ("GET http://evil.example/health HTTP/1.0", "", 421),
        ("GET /health HTTP/1.1", "", 400),
        ("GET /health HTTP/1.1", "Host:\r\n", 400),
    ],
)
def test_only_http_1_0_needs_no_host(
    router: Router, request_line: str, host: str, status: int
) -> None:
    """Load balancers' health checks use HTTP/1.0; a foreign Host is refused in each version."""
    assert router.send(f"{request_line}\r\n{host}\r\n".encode()).status == status


FORWARDED = {
    "X-Forwarded-For": "9.9.9.9",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Port": "9",
    "Forwarded": "for=9.9.9.9",
    "X-Real-IP": "9.9.9.9",
    "Via": "1.1 evil",
}
OWN = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost", "X-Forwarded-Proto": "http"}
PASSED = {"Authorization": "Bearer t", "Idempotency-Key": "k", "Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (PASSED, PASSED),
        (FORWARDED, dict.fromkeys(FORWARDED) | OWN),
        ({"X-Request-Id": "kept", "Connection": "close, X-Request-Id, X-Forwarded-For"},
         {"X-Request-Id": "kept", "X-Forwarded-For": "127.0.0.1"}),
        ({"Connection": "Upgrade", "Upgrade": "websocket"},
         {"Connection": None, "Upgrade": None}),
    ],
    ids=["others", "forwarded", "connection", "upgrade"],
)  # fmt: skip
def test_headers_pass_unless_the_router_sets_them(
    platform: Platform, sent: dict[str, str], received: dict[str, str | None]
) -> None:
    """A client cannot set or remove the router's headers, or make a tunnel of its connection."""
    headers = {"Host": "localhost"} | sent
    assert platform.router.request("POST", "/auth/token", b"{}", headers).status == 200
    seen = platform.auth.last().headers
    assert {name: seen[name] for name in received} == received


@pytest.mark.parametrize("path", ["/health", "/nothing", "/auth/token", "/auth/hang-up"])
def test_no_response_names_a_product(platform: Platform, path: str) -> None:
    """No response names the software of the router or a service (`Server: gunicorn`)."""
    platform.auth.replies["/hang-up"] = Reply(None)
    response = platform.router.request("GET", path)
    assert (response.headers["Server"], response.headers["Via"]) == (None, None)
    assert not re.search(
        r"caddy|gunicorn|python", f"{response.headers}{response.body!r}", re.IGNORECASE
    )


def test_nothing_is_compressed(platform: Platform) -> None:
    """Small responses stay as they are: the router neither compresses nor asks a service to."""
    platform.auth.replies["/token"] = Reply(body=b'{"a": "%s"}' % (b"x" * 4_000))
    response = platform.router.request("GET", "/auth/token", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] is None
    assert response.json() == {"a": "x" * 4_000}
    platform.router.send(_GET + b"\r\n")
    assert platform.auth.last().headers["Accept-Encoding"] is None
