"""Tracing: off, on, limited, and with an endpoint that does not respond."""

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from types import SimpleNamespace

import falcon
import falcon.testing
import pytest
from structlog.testing import capture_logs

from services.common import otel, tracing
from services.common.settings import HttpSettings
from services.common.web import make_app
from tests.http_service import Reply, service_on
from tests.receiver import receiver
from tests.support import CLOSED_PORT, ROOT

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED, UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-01", f"00-{TRACE}-b7ad6b7169203331-00"


class Thing:
    def on_get(self, _req: falcon.Request, resp: falcon.Response, thing: str) -> None:
        resp.media = {"traceparent": tracing.traceparent(tracing.span(thing))}


def configured(endpoint: str) -> falcon.testing.TestClient:
    tracing.configure("test", endpoint)
    tracing.start()
    settings = HttpSettings.read({"HTTP_PORT": "1"})
    app = make_app({"/{thing}": Thing()}, settings, checks={})
    return falcon.testing.TestClient(app, headers={"Host": "localhost"})


@pytest.fixture(autouse=True)
def _stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stops each test's exporter."""
    monkeypatch.setattr(tracing, "_tracing", None)
    yield
    tracing.stop()


def test_no_sdk_is_imported_while_off() -> None:
    """Without an endpoint, nothing loads OpenTelemetry's SDK or metrics, not even redis-py."""
    code = """
import sys
from services.common import logs, server, settings, worker
import services.core_api.app, services.psp_connector.connector, services.psp_sandbox.app
logs.configure("core-api", settings.Settings.read({}))
names = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.metrics")
found = [name for name in sys.modules if name.startswith(names)]
print([name for name in found if getattr(sys.modules[name], "__file__", None)])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_a_request_continues_the_trace_of_its_caller() -> None:
    """The span has the caller's trace and the route's name; unsampled means no span."""
    with receiver() as received:
        client = configured(received.endpoint)
        answer = client.simulate_get("/a", headers={"traceparent": SAMPLED}).json
        assert answer["traceparent"].startswith(f"00-{TRACE}-")
        unsampled = client.simulate_get("/b", headers={"traceparent": UNSAMPLED}).json
        assert unsampled["traceparent"] == ""
        client.simulate_get("/health")
        tracing.stop()
    [span] = received.spans
    caller = SAMPLED.split("-")[2]
    assert (span.trace_id, span.parent_id, span.name) == (TRACE, caller, "GET /{thing}")
    assert span.attributes["http.response.status_code"] == 200


@pytest.mark.parametrize("path", ["//me:hunter2@localhost/a", "/http://me:hunter%2f2@localhost/a"])
def test_the_user_in_a_path_is_not_exported(path: str) -> None:
    """It is not logged either."""
    with receiver() as received, capture_logs() as logs:
        client = configured(received.endpoint)
        for one in (path, "/a@b"):
            client.simulate_get(one, headers={"traceparent": SAMPLED})
        tracing.stop()
    span, other = received.spans
    assert span.attributes["url.path"] == "localhost/a"
    assert other.attributes["url.path"] == "/a@b"
    assert "hunter" not in f"{span} {logs}"


@pytest.mark.parametrize(
    "header", ["x", f"00-{'0' * 32}-{'0' * 16}-01", SAMPLED + "-x", "ff" + SAMPLED]
)
def test_a_malformed_traceparent_begins_a_new_trace(header: str) -> None:
    """Nothing a client sends causes an error or enters the trace."""
    client = configured(f"http://127.0.0.1:{CLOSED_PORT}")
    answer = client.simulate_get("/a", headers={"traceparent": header})
    assert answer.status_code == 200
    assert TRACE not in answer.json["traceparent"]


def test_new_traces_are_rate_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number begins in a second; requests from within the platform are always traced."""
    now = [17.5]
    monkeypatch.setattr(otel, "time", SimpleNamespace(monotonic=lambda: now[0]))
    client = configured(f"http://127.0.0.1:{CLOSED_PORT}")
    router = {"traceparent": SAMPLED, "X-Forwarded-For": "127.0.0.1"}
    for now[0] in (17.5, 18.0):
        answers = [client.simulate_get("/a", headers=router).json["traceparent"] for _ in range(60)]
        assert [bool(one) for one in answers] == [True] * otel.TRACES_PER_SECOND_MAX + [False] * 10
    inside = client.simulate_get("/a", headers={"traceparent": SAMPLED})
    assert inside.json["traceparent"]


def test_a_response_without_end_is_not_read() -> None:
    """An endless response does not grow the exporting process."""
    with service_on() as service:
        service.reply = Reply(body=b"x" * 20_000_000)
        tracemalloc.start()
        otel.Exporter(service.url).export([])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10_000_000


def test_a_redirect_is_not_followed() -> None:
    """OTEL_EXPORTER_OTLP_HEADERS, which may hold a key, reach only the endpoint."""
    with service_on() as service, capture_logs() as logs:
        service.reply = Reply(302, (("Location", f"{service.url}/elsewhere"),))
        otel.Exporter(service.url).export([])
    assert [seen.path for seen in service.seen] == ["/v1/traces"]
    assert [line["reason"] for line in logs] == ["HTTPError: HTTP Error 302: Found"]


def test_headers_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the router's exporter: values are percent-decoded and may have spaces and `=`."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer a%3D=, x-team = b%2Cc;d")
    with service_on() as service:
        otel.Exporter(service.url).export([])
    [seen] = service.seen
    assert (seen.headers["authorization"], seen.headers["x-team"]) == ("Bearer a==", "b,c;d")
