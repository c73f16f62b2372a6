from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest

from bench.load import Load, generate, parse
from bench.results import MeasureError

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUT = """Running 4s test @ http://127.0.0.1:8000
  600 requests in 2.00s, 435.36KB read

{"requests": 600, "seconds": 2.0, "refused": 100, "broken": %s, "p50_ms": 4.2, "p99_ms": 17.81}
"""
BODY = {"amount": 1, "x": '"[y]"\\'}


class Echo(BaseHTTPRequestHandler):
    """Records requests; answers 404 to all but payments."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str | None, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.requests.append((self.headers["Authorization"], body))
        self.send_response(202 if self.path == "/pay?x=1" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Echo.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_refusals_do_not_count_in_the_rate() -> None:
    """The rate counts responses below 400 only."""
    load = parse(OUTPUT % 0)
    assert load == Load(requests=600, seconds=2, refused=100, broken=0, p50_ms=4.2, p99_ms=17.81)
    assert load.rate == 250


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (OUTPUT % 3, "3 requests got no response, 600 got one"),
        ("unable to connect to 127.0.0.1:1 Connection refused\n", "unable to connect"),
    ],
)
def test_a_run_without_all_responses_is_invalid(output: str, message: str) -> None:
    """Requests without a response make a run invalid, and the message says what happened."""
    with pytest.raises(MeasureError, match=message):
        parse(output)


def test_requests_are_sent_in_turn_and_unchanged(url: str) -> None:
    """Wrk sends each request in turn, with its query, header and body."""
    requests = [
        httpx.Request(
            "POST", f"{url}/pay?x=1", headers={"Authorization": f"Bearer {who}"}, json=BODY
        )
        for who in ("a", "b")
    ]
    load = generate(requests, connections=1, seconds=0.3)
    assert 0 < load.requests <= len(Echo.requests)
    turn = [(request.headers["Authorization"], request.content) for request in requests]
    assert sorted(Echo.requests[:2]) == turn
    assert Echo.requests[2:4] == Echo.requests[:2]


def test_an_unexpected_refusal_makes_a_run_invalid(url: str) -> None:
    """A rate of refusals is never reported as one of good responses."""
    requests = [httpx.Request("POST", f"{url}/other")]
    with pytest.raises(MeasureError, match="were refused"):
        generate(requests, connections=1, seconds=0.2)
    assert generate(requests, connections=1, seconds=0.2, refusals=True).rate == 0
