from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from bench.load import generate
from bench.results import MeasureError

BODY = {"amount": 1, "x": '"[y]"\\'}


class Echo(BaseHTTPRequestHandler):
    """Records requests; hangs up, or answers 404 to all but payments."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str | None, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.requests.append((self.headers["Authorization"], body))
        if self.path == "/hang-up":
            self.close_connection = True
            return
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


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/hang-up", "requests got no response"),
        (":1", "unable to connect"),
        ("/other", "were refused"),
    ],
)
def test_a_run_without_good_responses_is_invalid(url: str, path: str, message: str) -> None:
    """A rate of refusals or broken connections is never reported as one of good responses."""
    address = "http://127.0.0.1:1" if path == ":1" else f"{url}{path}"
    with pytest.raises(MeasureError, match=message):
        generate([httpx.Request("POST", address)], connections=1, seconds=0.2)


def test_refusals_do_not_count_in_the_rate(url: str) -> None:
    """The rate counts responses below 400 only."""
    requests = [httpx.Request("POST", f"{url}{path}", json={}) for path in ("/pay?x=1", "/other")]
    load = generate(requests, connections=1, seconds=0.2, refusals=True)
    assert load.refused == pytest.approx(load.requests / 2, abs=1)
    assert load.rate == pytest.approx((load.requests - load.refused) / load.seconds)


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
