from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from bench.errors import MeasureError
from bench.load import Load, Request, generate, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

TOLD = """Running 4s test @ http://127.0.0.1:8000
  1 threads and 16 connections
  600 requests in 2.00s, 435.36KB read
Requests/sec:    300.00

{"requests": 600, "microseconds": 2000000, "refused": 100, "broken": %s, "p50_us": 4200, "p99_us": 17810, "max_us": 20000}
"""  # noqa: E501


class Echo(BaseHTTPRequestHandler):
    """Notes what it is asked; refuses what is not a payment."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, str | None, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        self.seen.append((self.command, self.path, self.headers["Authorization"], body))
        self.send_response(202 if self.path == "/pay" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Echo.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_wrk_tells_is_read() -> None:
    """Counts, seconds and milliseconds; a refusal is no good answer."""
    load = parse(TOLD % 0)
    assert Load(requests=600, seconds=2, refused=100, p50_ms=4.2, p99_ms=17.81) == load
    assert (load.rate, load.refusal_rate) == (250, 50)


def test_a_request_without_an_answer_spoils_the_run() -> None:
    """A rate that leaves out what never came back would flatter."""
    with pytest.raises(MeasureError, match="3 of 600 requests got no response"):
        parse(TOLD % 3)


def test_output_that_says_nothing_is_shown() -> None:
    """When wrk fails, its own words are the reason."""
    with pytest.raises(MeasureError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_requests_are_sent_in_turn_and_as_they_are(url: str) -> None:
    """Each request in its turn, with its header and its body."""
    requests = [
        Request("POST", "/pay", {"Authorization": f"Bearer {who}"}, '{"amount": 1, "x": "[y]"}')
        for who in ("a", "b")
    ]
    load = generate(url, requests, connections=1, seconds=0.3)
    assert 0 < load.requests <= len(Echo.seen)
    body = '{"amount": 1, "x": "[y]"}'
    turns = [("POST", "/pay", "Bearer a", body), ("POST", "/pay", "Bearer b", body)]
    assert turns == sorted(Echo.seen[:2])
    assert Echo.seen[:2] == Echo.seen[2:4]


def test_a_refusal_that_was_not_expected_spoils_the_run(url: str) -> None:
    """A rate of refusals is never taken for one of good answers."""
    requests = [Request("POST", "/other")]
    with pytest.raises(MeasureError, match="were refused"):
        generate(url, requests, connections=1, seconds=0.3)
    assert generate(url, requests, connections=1, seconds=0.3, refusals=True).rate == 0


def test_a_body_that_lua_would_misread_is_not_sent() -> None:
    """What would end the text in wrk's script is refused before."""
    with pytest.raises(ValueError, match="]==]"):
        Request("POST", "/", {}, "]==]").lua()
