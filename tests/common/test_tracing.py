"""Tracing: off, on, limited, and with an endpoint that does not answer."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import falcon
import falcon.testing
import pytest
from structlog.testing import capture_logs

from services.common import otel, otlp, tracing
from services.common.settings import HttpSettings
from services.common.web import make_app
from tests.receiver import receiver
from tests.support import ROOT, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED, UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-01", f"00-{TRACE}-b7ad6b7169203331-00"


class Thing:
    def on_get(self, _req: falcon.Request, resp: falcon.Response, thing: str) -> None:
        resp.media = {"traceparent": tracing.span(thing).traceparent}


def configured(endpoint: str) -> falcon.testing.TestClient:
    tracing.configure("test", endpoint)
    tracing.start()
    settings = HttpSettings.read({"HTTP_PORT": "1"})
    app = make_app({"/{thing}": Thing()}, settings, checks={})
    return falcon.testing.TestClient(app, headers={"Host": "localhost"})


@pytest.fixture(autouse=True)
def _stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No exporter of one test is at work in the next."""
    monkeypatch.setattr(tracing, "_tracing", None)
    yield
    tracing.stop()


@pytest.fixture
def silent() -> Iterator[str]:
    """An endpoint that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(10)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_off_it_imports_nothing() -> None:
    """Without an endpoint no module of OpenTelemetry is loaded, by redis-py neither."""
    code = """
import sys
from services.common import logs, server, settings, worker
import services.core_api.app, services.psp_connector.connector, services.psp_sandbox.app
logs.configure("core-api", settings.Settings.read({}))
names = [name for name in sys.modules if name.startswith("opentelemetry.")]
print([name for name in names if getattr(sys.modules[name], "__file__", None)])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_a_request_continues_the_trace_of_its_caller() -> None:
    """Same trace, below the caller's span, named by the route; unsampled means no span at all."""
    with receiver() as received:
        client = configured(received.endpoint)
        answer = client.simulate_get("/a", headers={"traceparent": SAMPLED}).json
        assert answer["traceparent"].startswith(f"00-{TRACE}-")
        unsampled = client.simulate_get("/b", headers={"traceparent": UNSAMPLED}).json
        assert unsampled["traceparent"] == ""
        client.simulate_get("/health")
        tracing.stop()
    [span] = received.spans
    assert (span.trace_id, span.parent, span.name) == (TRACE, SAMPLED.split("-")[2], "GET /{thing}")
    assert span.attributes["http.response.status_code"] == 200


@pytest.mark.parametrize(
    "header", ["x", f"00-{'0' * 32}-{'0' * 16}-01", SAMPLED + "-x", "ff" + SAMPLED]
)
def test_a_malformed_traceparent_begins_a_new_trace(header: str) -> None:
    """Nothing a client sends makes an error or ends up in the trace."""
    client = configured("http://127.0.0.1:1")
    answer = client.simulate_get("/a", headers={"traceparent": header})
    assert answer.status_code == 200
    assert TRACE not in answer.json["traceparent"]


def test_only_so_many_traces_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the burst the rate holds; a caller within the platform is always followed."""
    monkeypatch.setattr(otel, "TRACES_PER_SECOND_MAX", 1)
    client = configured("http://127.0.0.1:1")
    router = {"traceparent": SAMPLED, "X-Forwarded-For": "127.0.0.1"}
    count = otel.TRACES_BURST_MAX + 100
    answers = [client.simulate_get("/a", headers=router).json["traceparent"] for _ in range(count)]
    assert otel.TRACES_BURST_MAX <= len([one for one in answers if one]) < count - 50
    inside = client.simulate_get("/a", headers={"traceparent": SAMPLED})
    assert inside.json["traceparent"]


def test_a_silent_endpoint_holds_nothing_up(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    """Requests take no time, old spans are dropped, the stop is bounded, one line is logged."""
    monkeypatch.setattr(otlp, "_HTTP_SECONDS_MAX", 0.1)
    monkeypatch.setattr(otel, "TRACES_BURST_MAX", 100_000)
    with capture_logs() as logs:
        client = configured(silent)
        began = time.monotonic()
        for _ in range(1000):
            client.simulate_get("/a", headers={"traceparent": SAMPLED})
        assert time.monotonic() - began < 10
        wait_until(lambda: [x for x in logs if x["event"] == "traces cannot be exported"])
        began = time.monotonic()
        tracing.stop()
        assert time.monotonic() - began < otel.STOP_SECONDS_MAX + 0.3
    assert [x["event"] for x in logs if x["event"] != "request"] == ["traces cannot be exported"]


def test_a_response_without_end_is_not_read() -> None:
    """A wrong port may be anything; the process that exports must not grow with it."""
    sent = 0

    def endless(listener: socket.socket) -> None:
        nonlocal sent
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while sent < 20_000_000:
                sent += connection.send(b"x" * 100_000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=endless, args=(listener,))
        thread.start()
        otlp.Exporter(f"http://127.0.0.1:{listener.getsockname()[1]}").export([])
        thread.join(20)
    assert sent < 10_000_000  # what the system buffers


def test_headers_that_cannot_be_sent_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line of the log, as everything that keeps traces from being exported."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x=a%0d%0ab")
    with receiver() as found, capture_logs() as logs:
        exporter = otlp.Exporter(found.endpoint)
        exporter.export([])
        exporter.export([])
    assert [(x["event"], x["reason"]) for x in logs] == [
        ("traces cannot be exported", "ValueError")
    ]
