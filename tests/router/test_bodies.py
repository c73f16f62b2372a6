"""The size, the framing and the pace of requests."""

import re
import socket
import time
from contextlib import ExitStack

import pytest

from tests.http_service import Reply, Service
from tests.router.helpers import Platform, Router, problem, receive
from tests.support import wait_until

BODY_BYTES_MAX = 16_384
_POST = b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\n"


def test_a_larger_body_is_refused_unread(platform: Platform) -> None:
    """A body above the limit is 413 at once, before any of it was sent."""
    started = time.monotonic()
    response = platform.router.send(_POST + b"Content-Length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1))
    assert problem(response) == (413, "payload-too-large")
    assert time.monotonic() - started < 5
    assert platform.seen() == []


@pytest.mark.parametrize("chunk_bytes", [2, 20_000, 2_000_000])
def test_a_body_in_chunks_is_refused(platform: Platform, chunk_bytes: int) -> None:
    """A body without a length is 411 at any size: WSGI has none."""
    chunk = b"%x\r\n" % chunk_bytes + b"x" * min(chunk_bytes, 20_000)
    response = platform.router.send(_POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
    assert problem(response) == (411, "length-required")
    assert platform.seen() == []


def test_expect_100_continue(platform: Platform) -> None:
    """The router answers `Expect: 100-continue`; the service gets headers and body together."""
    head = _POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    with platform.router.connect() as connection:
        connection.sendall(head)
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert platform.seen() == []
        connection.sendall(b"{}")
        assert receive(connection).status == 200
    assert (platform.auth.last().body, platform.auth.last().headers["Expect"]) == (b"{}", None)


def test_slow_senders_do_not_hold_a_service(platform: Platform) -> None:
    """A service gets no connection for a half-sent body, and so responds to other requests."""
    with ExitStack() as stack:
        for _client in range(32):
            connection = stack.enter_context(platform.router.connect())
            connection.sendall(_POST + b"Content-Length: 100\r\n\r\n{")
        begun = platform.auth.begun
        statuses = [platform.router.request("POST", "/auth/token", b"{}").status for _ in range(5)]
        assert statuses == [200] * 5
        assert platform.auth.begun == begun + 5


def test_slow_readers_do_not_hold_a_service(platform: Platform) -> None:
    """A service responds to others while more clients than it has connections read nothing."""
    platform.core.replies["/"] = Reply(body=b"x" * 1_000_000)
    with ExitStack() as stack:
        for _client in range(80):
            connection = stack.enter_context(socket.socket())
            # Before connecting, so that the kernel holds little of the response.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            connection.connect(("127.0.0.1", platform.router.port))
            connection.sendall(b"GET /transactions HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: platform.core.begun >= 80, what="the slow readers' requests")
        started = time.monotonic()
        assert platform.router.request("GET", "/transactions/loyalty").status == 200
        assert time.monotonic() - started < 5


def test_a_body_that_is_cut_off_reaches_no_service(platform: Platform) -> None:
    """A body cut off by the client is 408 and never reaches the service."""
    sent = _POST + b"Content-Length: 20\r\n\r\n0123456789"
    assert problem(platform.router.send(sent, half_close=True)) == (408, "request-timeout")
    assert platform.seen() == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_half_closed_connection_never_gets_an_empty_200(platform: Platform, method: str) -> None:
    """A half-closed connection gets the response, or a 499 that leaves the outcome open."""
    platform.auth.replies["/token"] = Reply(wait_seconds=0.05)
    head = f"{method} /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"
    for _ in range(20):
        response = platform.router.send(head.encode(), half_close=True)
        if response.status == 200:
            assert response.body == b"{}"
        else:
            assert problem(response) == (499, "client-closed-request")


@pytest.mark.parametrize("length", [b"2\r\n ", b"99999\r\n\t"])
def test_a_folded_length_is_refused(platform: Platform, length: bytes) -> None:
    """A header on two lines, which RFC 9112 refuses, is no number to the checks above."""
    # Of the test above, which closes its connections, a request may arrive only now.
    head = _POST.replace(b"token", b"folded")
    response = platform.router.send(head + b"Content-Length: %s\r\n\r\n{}" % length)
    assert problem(response) == (400, "bad-request")
    assert "/folded" not in [request.path for request in platform.seen()]


# Requests inside requests

_SMUGGLED = b"GET /transactions/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
_LENGTH = len(_SMUGGLED)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_AMBIGUOUS = {
    "length and chunks": b"Content-Length: %d\r\n%s\r\n0\r\n\r\n" % (5 + _LENGTH, _CHUNKED),
    "chunks and length": b"%sContent-Length: 4\r\n\r\n%x\r\n" % (_CHUNKED, _LENGTH),
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % _LENGTH,
    "a list of lengths": b"Content-Length: %d, 0\r\n\r\n" % _LENGTH,
    "a signed length": b"Content-Length: +%d\r\n\r\n" % _LENGTH,
    "an unknown coding": b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n",
    "two codings": _CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a bare carriage return": b"X: a\rContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize(
    "sent",
    [
        *(_POST + rest for rest in _AMBIGUOUS.values()),
        b"POST /auth/x\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=[*_AMBIGUOUS, "a tab in the first line"],
)
def test_ambiguous_framing_ends_the_connection(
    impatient: tuple[Router, Service], sent: bytes
) -> None:
    """Ambiguous framing (request smuggling) is refused, and nothing after it is read."""
    router, auth = impatient
    begun = auth.begun
    received = router.raw(sent + _SMUGGLED)
    assert re.match(rb"HTTP/1\.1 (400|411|501) ", received)
    assert (received.count(b"HTTP/1.1 "), auth.begun) == (1, begun)


def test_a_request_in_a_body_stays_a_body(platform: Platform) -> None:
    """A body of the largest size, full of requests, arrives unchanged, as does what follows."""
    body = (_SMUGGLED * 400)[:BODY_BYTES_MAX]
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    received = platform.router.raw(_POST + b"Content-Length: %d\r\n\r\n" % len(body) + body + last)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert [(seen.path, seen.body) for seen in platform.seen()] == [("/token", body)]


def test_oversize_headers_are_refused(platform: Platform) -> None:
    """Headers over 64 KiB (and the 4 KiB that Go adds) are 431 and reach no service."""
    big = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 7_000) for number in range(10))
    received = platform.router.raw(_POST + b"Connection: close\r\n" + big + b"\r\n")
    assert received.startswith(b"HTTP/1.1 431 ")
    assert platform.seen() == []
