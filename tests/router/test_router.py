"""The router as a client and as a service see it: a real one, on free ports."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from devtools.catalog import SERVICES
from devtools.loglines import parse as parse_line
from tests.router.helpers import (
    CONFIG,
    Answer,
    OneThreadServer,
    Platform,
    Response,
    Router,
    environment,
    parse,
    platform_in,
    problem,
    read_all,
    router_on,
    service_on,
)
from tests.support import free_ports, wait_until

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

BODY_BYTES_MAX = 16_384
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


# Paths


@pytest.mark.parametrize(
    ("asked", "reached"),
    [
        ("/auth/token", "/token"),
        ("/auth/health", "/health"),
        ("/auth/openapi.json", "/openapi.json"),
        ("/auth", "/"),
        ("/auth/", "/"),
        ("/auth?a=b", "/?a=b"),
    ],
)
def test_auth_paths_reach_the_auth_api_without_their_prefix(
    platform: Platform, asked: str, reached: str
) -> None:
    """`/auth` and what is below it goes to the Auth API, which does not see the prefix."""
    assert platform.router.ask("GET", asked).status == 200
    assert [reached] == [seen.path for seen in platform.auth.seen]
    assert platform.core.seen == []


@pytest.mark.parametrize(
    ("asked", "reached"),
    [
        ("/transactions", "/"),
        ("/transactions/", "/"),
        ("/transactions/transaction", "/transaction"),
        (
            "/transactions/0b6f4b6e-6f0e-4c3e-9d0e-6a2f0a9d6f11",
            "/0b6f4b6e-6f0e-4c3e-9d0e-6a2f0a9d6f11",
        ),
        ("/transactions?limit=5&cursor=a%2Fb//..", "/?limit=5&cursor=a%2Fb//.."),
        ("/transactions/transactions", "/transactions"),
    ],
)
def test_transactions_paths_reach_the_core_api_without_their_prefix(
    platform: Platform, asked: str, reached: str
) -> None:
    """`/transactions` and what is below it goes to the Core API, query and body untouched."""
    assert platform.router.ask("POST", asked, b'{"amount": 1}').status == 200
    assert [(reached, b'{"amount": 1}')] == [(seen.path, seen.body) for seen in platform.core.seen]
    assert platform.auth.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/authx",
        "/auth.",
        "/AUTH/token",
        "/Transactions",
        "/transactionsfoo",
        "/health/",
        "/health/x",
        "/metrics",
        "//auth/token",
        "/auth//token",
        "/auth/../transactions",
        "/auth/%2e%2e/transactions",
        "/auth/x/../../transactions",
        "/./auth/token",
        "/auth%2ftoken",
        "/auth/to%6ben",
        "/transactions//health",
        "/transactions/;/health",
        "/transactions/a%00b",
        "/transactions/a\\b",
        "*",
    ],
)
def test_any_other_path_is_the_routers_404(platform: Platform, path: str) -> None:
    """What is not in the contract, however it is spelt, reaches no service."""
    assert problem(platform.router.ask("GET", path)) == (404, "not-found")
    assert platform.seen() == []


@pytest.mark.parametrize("prefix", ["auth", "transactions"])
@pytest.mark.parametrize(
    "rest",
    [
        "/metrics",
        "/metrics/",
        "/metrics?x=1",
        "/metrics/x",
        "/METRICS",
        "//metrics",
        "/./metrics",
        "/x/../metrics",
        "/%6detrics",
        "/metrics%2f",
        "%2fmetrics",
        "/metrics;x",
        "/metrics%00",
    ],
)
def test_no_spelling_of_metrics_reaches_a_service(
    platform: Platform, prefix: str, rest: str
) -> None:
    """Metrics are for who is on the machine, not for who comes through the router."""
    assert problem(platform.router.ask("GET", f"/{prefix}{rest}")) == (404, "not-found")
    assert platform.seen() == []


@pytest.mark.parametrize("host", ["platform.localhost:8000", "127.0.0.1", "LOCALHOST", "[::1]:1"])
@pytest.mark.parametrize("path", ["/health", "/health?x"])
def test_health_is_answered_under_each_name(platform: Platform, host: str, path: str) -> None:
    """The router answers its own health check."""
    response = platform.router.ask("GET", path, headers={"Host": host})
    assert (response.status, response.json()) == (200, {"status": "pass"})
    assert response.headers["Content-Type"] == "application/health+json"
    assert platform.seen() == []


@pytest.mark.parametrize("path", ["/health", "/auth/token", "/nothing"])
@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.7:8000", "a,b"])
def test_a_foreign_host_is_misdirected(platform: Platform, host: str, path: str) -> None:
    """A name that was made to lead here (DNS rebinding) gets nothing, not even the health."""
    response = platform.router.ask("GET", path, headers={"Host": host})
    assert problem(response) == (421, "misdirected-request")
    assert platform.seen() == []


def test_hosts_are_allowed_by_a_setting(tmp_path: Path) -> None:
    """ALLOWED_HOSTS has the names clients use; a service sees one it knows, and the client's."""
    with platform_in(tmp_path, ALLOWED_HOSTS="pay.example www.example") as platform:
        for host in ("pay.example", "WWW.example:443"):
            assert platform.router.ask("GET", "/auth/x", headers={"Host": host}).status == 200
            seen = platform.auth.last().headers
            assert ("localhost", host) == (seen["Host"], seen["X-Forwarded-Host"])
        response = platform.router.ask("GET", "/auth/x", headers={"Host": "example"})
        assert problem(response) == (421, "misdirected-request")


def test_health_is_only_read(router: Router) -> None:
    """HEAD is answered as GET is, without the body; any other method has nothing there."""
    response = router.ask("HEAD", "/health")
    assert (response.status, response.body) == (200, b"")
    assert problem(router.ask("POST", "/health", b"{}")) == (404, "not-found")


def test_a_services_location_gets_the_prefix_back(platform: Platform) -> None:
    """The Core API says `/{id}`; a client is told where that is for it."""
    platform.core.answers["/"] = Answer(202, (("Location", "/42"),))
    response = platform.router.ask("POST", "/transactions", b"{}")
    assert (response.status, response.headers.get_all("Location")) == (202, ["/transactions/42"])


@pytest.mark.parametrize("location", ["https://other.example/42", "//other.example/42"])
def test_a_location_elsewhere_is_left_alone(platform: Platform, location: str) -> None:
    """Only a path of the service's own is put below the prefix."""
    platform.core.answers["/"] = Answer(303, (("Location", location),))
    assert location == platform.router.ask("GET", "/transactions").headers["Location"]


# Bodies


def test_a_body_of_16_kib_arrives_whole(platform: Platform) -> None:
    """The limit is the largest size that is good."""
    body = bytes(index % 256 for index in range(BODY_BYTES_MAX))
    assert platform.router.ask("POST", "/transactions", body).status == 200
    assert body == platform.core.last().body


def test_a_larger_body_is_refused_unread(platform: Platform) -> None:
    """413 comes at once, though not a byte of the body was sent."""
    head = b"POST /transactions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    with platform.router.connect() as connection:
        started = time.monotonic()
        connection.sendall(head % (BODY_BYTES_MAX + 1))
        response = parse(connection.recv(65_536))
    assert problem(response) == (413, "payload-too-large")
    assert time.monotonic() - started < 5
    assert platform.seen() == []


@pytest.mark.parametrize("chunk_bytes", [2, 20_000, 2_000_000])
def test_a_body_in_chunks_is_refused(platform: Platform, chunk_bytes: int) -> None:
    """WSGI has no body without a length: 411 says to send one, whatever the size."""
    head = b"POST /transactions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with platform.router.connect() as connection:
        connection.sendall(head + b"%x\r\n" % chunk_bytes + b"x" * min(chunk_bytes, 20_000))
        response = parse(connection.recv(65_536))
    assert problem(response) == (411, "length-required")
    assert platform.seen() == []


def test_a_client_may_ask_before_it_sends_the_body(platform: Platform) -> None:
    """`Expect: 100-continue` is answered by the router; the service gets the body at once."""
    head = _POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    with platform.router.connect() as connection:
        connection.sendall(head)
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert platform.seen() == []
        connection.sendall(b"{}")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 OK\r\n")
    assert (platform.auth.last().body, platform.auth.last().headers["Expect"]) == (b"{}", None)


def test_slow_senders_do_not_hold_a_service(tmp_path: Path) -> None:
    """With 32 half-sent bodies open, a service that has one thread answers all others."""
    port = free_ports(3)
    head = b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    with ExitStack() as stack:
        auth = stack.enter_context(service_on(port + 1, OneThreadServer))
        router = stack.enter_context(router_on(tmp_path, port))
        for _client in range(32):
            stack.enter_context(router.connect()).sendall(head)
        started = time.monotonic()
        statuses = [router.ask("POST", "/auth/token", b"{}").status for _request in range(5)]
        assert statuses == [200] * 5
        assert time.monotonic() - started < 5
        assert [seen.body for seen in auth.seen] == [b"{}"] * 5


def test_a_body_that_is_cut_off_reaches_no_service(platform: Platform) -> None:
    """Half a body and no more to come is an error of the client, not half a request."""
    head = b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n0123456789"
    with platform.router.connect() as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        response = parse(connection.recv(65_536))
    assert problem(response) == (408, "request-timeout")
    assert platform.seen() == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_half_closed_connection_never_gets_an_empty_200(platform: Platform, method: str) -> None:
    """It gets the answer, or a 499 that leaves the outcome open."""
    platform.auth.answers["/token"] = Answer(wait_seconds=0.05)
    head = f"{method} /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"
    for _ in range(20):
        with platform.router.connect() as connection:
            connection.sendall(head.encode())
            connection.shutdown(socket.SHUT_WR)
            response = parse(read_all(connection, 5))
        if response.status == 200:
            assert response.body == b"{}"
        else:
            assert problem(response) == (499, "client-closed-request")


def test_an_answer_without_a_body_passes(platform: Platform) -> None:
    """`OPTIONS` of a service is a 200 of length 0, and stays one."""
    platform.auth.answers["/token"] = Answer(200, (("Allow", "POST, OPTIONS"),), b"")
    response = platform.router.ask("OPTIONS", "/auth/token")
    assert (
        response.status,
        response.body,
        response.headers["Allow"],
    ) == (200, b"", "POST, OPTIONS")


def test_a_path_that_is_too_long_is_refused(platform: Platform) -> None:
    """What the services' server would not read gets a problem document."""
    assert platform.router.ask("GET", "/auth/" + "x" * 7_990).status == 200
    assert problem(platform.router.ask("GET", "/auth/" + "x" * 8_000)) == (414, "uri-too-long")


@pytest.mark.parametrize(
    ("status", "code"), [(400, "bad-request"), (431, "headers-too-large"), (501, "not-implemented")]
)
def test_what_a_services_server_refuses_is_a_problem(
    platform: Platform, status: int, code: str
) -> None:
    """Its own refusals are HTML, of another length and with headers of their own."""
    html = (("Content-Type", "text/html"), ("Connection", "close"))
    platform.auth.answers["/token"] = Answer(status, html, b"<html>" * 100)
    response = platform.router.ask("POST", "/auth/token", b"{}")
    assert (status, code) == problem(response)
    assert response.headers["X-Request-Id"] == response.json()["request_id"]


# Requests inside requests

_SMUGGLED = b"GET /transactions/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
_POST = b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(
            _POST
            + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s"
            % (5 + len(_SMUGGLED), _SMUGGLED),
            id="length and chunks",
        ),
        pytest.param(
            _POST
            + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
            % (len(_SMUGGLED), _SMUGGLED),
            id="chunks and length",
        ),
        pytest.param(
            _POST
            + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n%s" % (len(_SMUGGLED), _SMUGGLED),
            id="two lengths",
        ),
        pytest.param(
            _POST + b"Content-Length: %d, 0\r\n\r\n%s" % (len(_SMUGGLED), _SMUGGLED),
            id="a list of lengths",
        ),
        pytest.param(
            _POST + b"Content-Length: +%d\r\n\r\n%s" % (len(_SMUGGLED), _SMUGGLED),
            id="a signed length",
        ),
        pytest.param(
            _POST + b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n" + _SMUGGLED,
            id="an unknown coding",
        ),
        pytest.param(
            _POST + b"Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n" + _SMUGGLED,
            id="a space before the colon",
        ),
        pytest.param(
            _POST
            + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
            + _SMUGGLED,
            id="two codings",
        ),
        pytest.param(
            _POST + b"X: a\rContent-Length: 0\r\n\r\n" + _SMUGGLED, id="a bare carriage return"
        ),
        pytest.param(
            b"POST /auth/x\tHTTP/1.1\r\nHost: localhost\r\n\r\n" + _SMUGGLED,
            id="a tab in the first line",
        ),
    ],
)
def test_a_doubtful_framing_is_refused_and_ends_the_connection(
    platform: Platform, sent: bytes
) -> None:
    """Where two readers could see two ends of a request, nothing is passed on, nor what follows."""
    received = platform.router.raw(sent)
    assert re.match(rb"HTTP/1\.1 (400|411|501) ", received)
    assert received.count(b"HTTP/1.1 ") == 1
    assert platform.seen() == []


def test_a_request_in_a_body_stays_a_body(platform: Platform) -> None:
    """What the length covers is the body, and the connection goes on behind it."""
    head = _POST + b"Content-Length: %d\r\n\r\n" % len(_SMUGGLED)
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    received = platform.router.raw(head + _SMUGGLED + last)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert [(seen.path, seen.body) for seen in platform.seen()] == [("/token", _SMUGGLED)]


def test_oversize_headers_are_refused(platform: Platform) -> None:
    """Headers have a limit here (64 KiB and the 4 KiB that Go adds); no service sees them."""
    received = platform.router.raw(
        b"GET /auth/token HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * 70_000 + b"\r\n\r\n"
    )
    assert received.startswith(b"HTTP/1.1 431 ")
    assert platform.seen() == []


@pytest.mark.parametrize(
    "preface",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    ],
    ids=["h2c", "TLS"],
)
def test_only_http_1_is_spoken(platform: Platform, preface: bytes) -> None:
    """Another protocol is turned away, and the router goes on."""
    assert b"HTTP/1.1 200" not in platform.router.raw(preface, quiet_seconds=1)
    assert platform.router.ask("GET", "/health").status == 200


# Headers


@pytest.mark.parametrize("request_id", ["a", "A.b_c-9", "x" * 64])
def test_a_clients_request_id_is_kept(platform: Platform, request_id: str) -> None:
    """A good request id goes to the service, back to the client once, and into the log."""
    response = platform.router.ask("GET", "/auth/token", headers={"X-Request-Id": request_id})
    assert [request_id] == platform.auth.last().headers.get_all("X-Request-Id")
    assert [request_id] == response.headers.get_all("X-Request-Id")
    assert request_id == platform.router.log_of(request_id)["request_id"]


@pytest.mark.parametrize(
    "request_id", ["", "x" * 65, "a b", 'a"b', "a,b", "{env.PATH}", "ä", "a/b"]
)
def test_a_bad_request_id_is_replaced(platform: Platform, request_id: str) -> None:
    """A request id that could do harm in a log or a header is not passed on but made anew."""
    sent = {"X-Request-Id": request_id}
    response = platform.router.ask("GET", "/auth/token", headers=sent)
    made = response.headers["X-Request-Id"]
    assert UUID.fullmatch(made)
    assert [made] == platform.auth.last().headers.get_all("X-Request-Id")
    assert made == platform.router.log_of(made)["request_id"]


def test_two_request_ids_are_none(platform: Platform) -> None:
    """A request that names itself twice gets one new name."""
    received = platform.router.raw(
        b"GET /auth/token HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\r\nX-Request-Id: b\r\n"
        b"Connection: close\r\n\r\n"
    )
    made = parse(received).headers.get_all("X-Request-Id") or []
    assert len(made) == 1
    assert UUID.fullmatch(made[0])
    assert made == platform.auth.last().headers.get_all("X-Request-Id")


def test_requests_get_ids_of_their_own(router: Router) -> None:
    """No two requests share a made id."""
    made = {router.ask("GET", "/health").headers["X-Request-Id"] for _request in range(5)}
    assert len(made) == 5


@pytest.mark.parametrize("method", ["GET", "X" * 33])
def test_a_problem_carries_the_request_id(router: Router, method: str) -> None:
    """The router's own errors can be found in the log, even those before any route."""
    request_id = f"id-{method}"
    response = router.ask(method, "/nothing", headers={"X-Request-Id": request_id})
    assert problem(response) in {(404, "not-found"), (405, "method-not-allowed")}
    assert request_id == response.json()["request_id"]
    assert response.status == router.log_of(request_id)["status"]


def test_an_empty_host_is_a_problem(router: Router) -> None:
    """An HTTP/1.1 request has to say whom it is for."""
    response = parse(router.raw(b"GET /health HTTP/1.1\r\nHost:\r\n\r\n"))
    assert problem(response) == (400, "bad-request")
    assert router.log_of(response.headers["X-Request-Id"])["status"] == 400


def test_a_clients_word_about_its_origin_is_not_believed(platform: Platform) -> None:
    """A service is told what the router knows, not what a client says of itself."""
    claimed = {
        "X-Forwarded-For": "9.9.9.9",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Port": "9",
        "Forwarded": "for=9.9.9.9",
        "X-Real-IP": "9.9.9.9",
        "Via": "1.1 evil",
        "SCRIPT_NAME": "/evil",
        "PATH_INFO": "/evil",
        "X_Forwarded_For": "9.9.9.9",
    }
    platform.router.ask("GET", "/auth/token", headers={"Host": "localhost:8000", **claimed})
    seen = platform.auth.last().headers
    known = {
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Host": "localhost:8000",
        "X-Forwarded-Proto": "http",
    }
    assert known == {name: seen[name] for name in claimed if name in seen}


def test_what_is_meant_for_a_service_reaches_it(platform: Platform) -> None:
    """Authorization, Idempotency-Key and the like pass; the service's own headers come back."""
    platform.core.answers["/"] = Answer(202, (("Idempotency-Replayed", "true"), ("Date", "today")))
    sent = {"Authorization": "Bearer t", "Idempotency-Key": "k", "Content-Type": "application/json"}
    response = platform.router.ask("POST", "/transactions", b"{}", sent)
    seen = platform.core.last().headers
    assert sent == {name: seen[name] for name in sent}
    assert response.headers["Idempotency-Replayed"] == "true"


def test_a_client_cannot_take_the_routers_headers_away(platform: Platform) -> None:
    """`Connection` names what is for the next hop alone; the request id is not among it."""
    sent = {"X-Request-Id": "kept", "Connection": "close, X-Request-Id, X-Forwarded-For"}
    platform.router.ask("GET", "/auth/token", headers=sent)
    seen = platform.auth.last().headers
    assert (seen["X-Request-Id"], seen["X-Forwarded-For"]) == ("kept", "127.0.0.1")


def test_an_upgrade_is_not_passed_on(platform: Platform) -> None:
    """No connection becomes a tunnel to a service."""
    sent = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert platform.router.ask("GET", "/auth/token", headers=sent).status == 200
    seen = platform.auth.last().headers
    assert (seen["Upgrade"], seen["Connection"]) == (None, None)


@pytest.mark.parametrize("path", ["/health", "/nothing", "/auth/token", "/auth/hang-up"])
def test_no_answer_names_a_product(platform: Platform, path: str) -> None:
    """Neither the router nor a service (`Server: gunicorn`) says what it runs on."""
    platform.auth.answers["/hang-up"] = Answer(None)
    response = platform.router.ask("GET", path)
    assert (response.headers["Server"], response.headers["Via"]) == (None, None)
    assert not re.search(
        r"caddy|gunicorn|python", f"{response.headers}{response.body!r}", re.IGNORECASE
    )


def test_a_small_answer_is_not_compressed(platform: Platform) -> None:
    """A few hundred bytes of JSON are sent as they are."""
    platform.auth.answers["/token"] = Answer(body=b'{"a": "%s"}' % (b"x" * 4_000))
    response = platform.router.ask("GET", "/auth/token", headers={"Accept-Encoding": "gzip"})
    assert None is response.headers["Content-Encoding"]
    assert response.json() == {"a": "x" * 4_000}


def test_the_router_asks_for_no_compression_of_its_own(platform: Platform) -> None:
    """A service packs nothing that the router would have to unpack."""
    platform.router.raw(b"GET /auth/token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert None is platform.auth.last().headers["Accept-Encoding"]


# Services that fail


def test_a_services_own_error_passes_untouched(platform: Platform) -> None:
    """The router explains only what it did itself."""
    body = b'{"type": "about:blank", "code": "queue-full"}'
    told = (("Content-Type", "application/problem+json"), ("Retry-After", "7"))
    platform.core.answers["/"] = Answer(503, told, body)
    response = platform.router.ask("POST", "/transactions", b"{}")
    assert (503, body, "7") == (response.status, response.body, response.headers["Retry-After"])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_service_that_hangs_up_is_502(platform: Platform, method: str) -> None:
    """It may have done its work, so the router does not ask again, and says so."""
    platform.core.answers["/"] = Answer(None)
    response = platform.router.ask(method, "/transactions", b"{}")
    assert problem(response) == (502, "bad-gateway")
    assert len(platform.core.seen) == 1


def test_a_service_that_is_down_is_503(tmp_path: Path) -> None:
    """After a short wait the client is told when to come again, and nothing of addresses."""
    port = free_ports(3)
    with router_on(tmp_path, port) as router:
        response = router.ask("POST", "/transactions", b"{}")
        assert problem(response) == (503, "service-unavailable")
        assert response.headers["Retry-After"] == "1"
        assert str(port + 2).encode() not in response.body
        assert f"127.0.0.1:{port + 2}" in router.log_of(response.headers["X-Request-Id"])["error"]
        assert router.ask("GET", "/health").status == 200


def test_a_service_at_several_addresses(tmp_path: Path) -> None:
    """All of them are asked, and when one does not listen the others answer."""
    port = free_ports(4)
    both = f"127.0.0.1:{port + 2} 127.0.0.1:{port + 3}"
    with service_on(port + 2) as first, router_on(tmp_path, port, CORE_API_ADDRESS=both) as router:
        with service_on(port + 3) as second:
            for service in (first, second):
                service.answers["/"] = Answer(headers=(("Connection", "close"),))
            assert {router.ask("GET", "/transactions").status for _ in range(40)} == {200}
            assert len(first.seen) + len(second.seen) == 40
            assert first.seen
            assert second.seen
        assert {router.ask("GET", "/transactions").status for _ in range(20)} == {200}


def test_a_restart_of_a_service_is_bridged(tmp_path: Path) -> None:
    """A request that comes while a service is away waits for it, body and all."""
    port = free_ports(3)
    answers: list[Response] = []
    with router_on(tmp_path, port) as router:
        with service_on(port + 2) as core:
            # A request on a kept connection that is closed at that very moment is a 502: it may
            # have been read. The claim is about those that come afterwards.
            core.answers["/"] = Answer(headers=(("Connection", "close"),))
            assert router.ask("POST", "/transactions", b"{}").status == 200
        client = threading.Thread(
            target=lambda: answers.append(router.ask("POST", "/transactions", b'{"amount": 1}'))
        )
        client.start()
        time.sleep(0.5)
        with service_on(port + 2) as core:
            client.join(10)
            assert [answer.status for answer in answers] == [200]
            assert [seen.body for seen in core.seen] == [b'{"amount": 1}']


# Logs


def test_the_access_log_says_what_happened(router: Router) -> None:
    """One JSON line for a request, with what is needed to find and to judge it."""
    router.ask("POST", "/auth/token", b"{}", {"X-Request-Id": "log-1"})
    line = router.log_of("log-1")
    assert line["service"] == "router"
    assert (line["status"], line["size"], line["bytes_read"]) == (200, 2, 2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["time"])
    assert 0 < line["ms"] < 10_000
    request = line["request"]
    assert (request["method"], request["uri"]) == ("POST", "/auth/token")
    assert request["remote_ip"] == "127.0.0.1"


def test_every_line_of_the_log_is_json_of_the_router(router: Router) -> None:
    """What the router has to say of itself has the same form."""
    assert {line["service"] for line in router.log()} == {"router"}


def test_a_probe_is_not_worth_a_line(router: Router) -> None:
    """/health is asked every few seconds; what was asked after it is in the log."""
    router.ask("GET", "/health", headers={"X-Request-Id": "probe"})
    router.ask("GET", "/nowhere", headers={"X-Request-Id": "after-the-probe"})
    router.log_of("after-the-probe")
    assert [line for line in router.log() if line.get("request_id") == "probe"] == []


@pytest.mark.parametrize("log_format", ["json", "console", ""])
def test_one_setting_for_the_format_of_all_logs(tmp_path: Path, log_format: str) -> None:
    """LOG_FORMAT=console is for people, and loses nothing."""
    with platform_in(tmp_path, LOG_FORMAT=log_format) as platform:
        platform.router.ask("GET", "/auth/x", headers={"X-Request-Id": "r-17"})
        text = wait_until(
            lambda: [t for t in platform.router.output.read_text().splitlines() if "r-17" in t],
            what="the request's line",
        )[0]
    line = parse_line(text)
    assert line is not None
    assert line.fields.items() >= {
        "service": "router", "event": "handled request", "method": "GET", "path": "/auth/x",
        "status": "200", "request_id": "r-17",
    }.items()  # fmt: skip
    assert (log_format != "console") == text.startswith("{")


def test_no_secret_is_logged_at_any_level(tmp_path: Path) -> None:
    """Neither headers nor bodies nor queries are in the log, even when it is at its longest."""
    headers = {
        name: f"SECRET-{name}"
        for name in ("Authorization", "Cookie", "Idempotency-Key", "X-Api-Key", "Referer")
    }
    with platform_in(tmp_path, LOG_LEVEL="debug") as platform:
        platform.core.answers["/hang-up"] = Answer(None)
        platform.core.answers["/"] = Answer(
            headers=(("Set-Cookie", "SECRET-5"), ("X-Token", "SECRET-6")), body=b"SECRET-7"
        )
        for path in ("/transactions", "/transactions/hang-up", "/nothing"):
            url = f"{path}?token=SECRET-query"
            platform.router.ask("POST", url, b'{"token": "SECRET-body"}', headers)
        last = platform.router.ask("GET", "/nowhere").headers["X-Request-Id"]
        platform.router.log_of(last)
        text = platform.router.output.read_text()
    assert '"level":"debug"' in text
    assert "SECRET" not in text


# The program


def test_what_a_start_leaves_behind(tmp_path: Path) -> None:
    """Without HOME it runs all the same, and it writes nothing outside its own folder."""
    port = free_ports(3)
    with router_on(tmp_path, port) as router:
        assert router.ask("GET", "/health").status == 200
    assert {path.name for path in tmp_path.iterdir()} - {"cwd", "state", "router.log"} == set()
    assert list((tmp_path / "cwd").iterdir()) == []


def test_a_stop_waits_a_little_for_a_request_and_no_longer(tmp_path: Path) -> None:
    """A service that hangs does not keep the router from stopping."""
    port = free_ports(3)
    with ExitStack() as stack:
        auth = stack.enter_context(service_on(port + 1))
        auth.answers["/hang"] = Answer(wait_seconds=20)
        router = stack.enter_context(router_on(tmp_path, port))
        client = stack.enter_context(router.connect())
        client.sendall(b"GET /auth/hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: auth.seen, what="the request at the service")
        started = time.monotonic()
        router.process.terminate()
        assert router.process.wait(10) == 0
        assert time.monotonic() - started < 5


def _caddy(*words: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["caddy", *words, "--adapter", "caddyfile", "--config", str(CONFIG)]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=30, check=False
    )


def _adapted(environ: dict[str, str]) -> Any:
    return json.loads(_caddy("adapt", environ=environ).stdout)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    """Without CADDY_STATE the error leads to the line that reads it."""
    environ = environment(8000, tmp_path)
    del environ["CADDY_STATE"]
    result = _caddy("run", environ=environ)
    assert result.returncode == 1
    assert "missing root path" in result.stderr
    [line] = re.findall(r"Caddyfile:(\d+)", result.stderr)
    assert "{$CADDY_STATE}" in CONFIG.read_text().splitlines()[int(line) - 1]


def test_a_folder_with_a_space_will_do(tmp_path: Path) -> None:
    """A checkout's path may have spaces in it, and so has the router's folder."""
    environ = environment(8000, tmp_path / "with a space")
    result = _caddy("validate", environ=environ)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PORT", None),
        *((f"{one.variable}_ADDRESS", None) for one in SERVICES.values() if one.route),
        ("LOG_LEVEL", "loud"),
        ("HTTP_PORT", "99999"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, name: str, value: str | None) -> None:
    """A missing or wrong setting stops the router with a message that shows which."""
    environ = environment(8000, tmp_path)
    environ.pop(name, None)
    if value is not None:
        environ[name] = value
    result = _caddy("run", environ=environ)
    assert result.returncode == 1
    assert (value or name) in result.stderr


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", ""])
def test_the_log_levels_of_the_services_are_understood(tmp_path: Path, level: str) -> None:
    """One LOG_LEVEL does for the whole stack."""
    assert _caddy("validate", environ=environment(8000, tmp_path, LOG_LEVEL=level)).returncode == 0


def test_the_configuration_is_valid_without_a_warning(tmp_path: Path) -> None:
    """Caddy has nothing to remark, but that there is no HOME, which is meant."""
    result = _caddy("validate", environ=environment(8000, tmp_path))
    assert result.returncode == 0
    warned = [line for line in result.stderr.splitlines() if '"level":"warn"' in line]
    assert [line for line in warned if "HOME" not in line] == []


def test_the_configuration_is_formatted() -> None:
    """`caddy fmt` would change nothing."""
    result = subprocess.run(
        ["caddy", "fmt", str(CONFIG)], capture_output=True, text=True, timeout=30, check=False
    )
    assert CONFIG.read_text() == result.stdout


def test_it_listens_at_one_address_and_nowhere_else(tmp_path: Path) -> None:
    """HTTP_HOST and HTTP_PORT, and no port for administration."""
    config = _adapted(environment(8123, tmp_path, HTTP_HOST="127.0.0.2"))
    servers = config["apps"]["http"]["servers"].values()
    assert [server["listen"] for server in servers] == [["127.0.0.2:8123"]]
    assert config["admin"]["disabled"]
    default = _adapted(environment(8123, tmp_path))["apps"]["http"]["servers"].values()
    assert [server["listen"] for server in default] == [["127.0.0.1:8123"]]


def test_the_clocks_fit_together(tmp_path: Path) -> None:
    """No answer that comes in time is cut off, and no service hangs up on a kept connection."""
    (server,) = _adapted(environment(8123, tmp_path))["apps"]["http"]["servers"].values()
    (proxy, *others) = _find(server, "handler", "reverse_proxy")
    assert others
    assert all(proxy["transport"] == other["transport"] for other in others)
    transport, retries = proxy["transport"], proxy["load_balancing"]
    slowest = (
        server["read_timeout"]
        + retries["try_duration"]
        + transport["dial_timeout"]
        + transport["response_header_timeout"]
    )
    assert slowest < server["write_timeout"]
    assert transport["keep_alive"]["idle_timeout"] < 75e9
    assert server["protocols"] == ["h1"]


def _find(node: Any, key: str, value: str) -> list[Any]:
    """Every object below `node` whose `key` is `value`."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    here = [node] if isinstance(node, dict) and node.get(key) == value else []
    return here + [found for child in inner for found in _find(child, key, value)]


# What the router's clocks end; begun before the first test, see conftest.py

Waiting = tuple[Platform, "dict[str, Future[bytes]]"]


@pytest.mark.parametrize("name", ["half-sent body", "dripping body"])
def test_a_slow_body_is_408(waiting: Waiting, name: str) -> None:
    """A body has 10 s, silence or not; the service never hears of one that takes longer."""
    platform, exchanges = waiting
    response = parse(exchanges[name].result(40))
    assert problem(response) == (408, "request-timeout")
    assert platform.auth.seen == []


def test_slow_headers_end_the_connection(waiting: Waiting) -> None:
    """A request that does not get to the end of its headers gets no more than an error."""
    received = waiting[1]["slow headers"].result(40)
    assert received == b"" or parse(received).status in {400, 408}


def test_a_slow_service_is_504(waiting: Waiting) -> None:
    """The client does not wait for ever, and the service is asked once."""
    platform, exchanges = waiting
    response = parse(exchanges["slow service"].result(40))
    assert problem(response) == (504, "gateway-timeout")
    assert [seen.path for seen in platform.core.seen] == ["/slow"]
