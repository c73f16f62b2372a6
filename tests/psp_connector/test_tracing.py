"""Every attempt is in the trace of its payment, linked to the attempt before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.common import otel, store, tracing
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.psp import Captured, Transient
from services.psp_connector.queue import Queue
from services.psp_connector.sweep import Sweep
from tests.psp_connector.fakes import FakePsp, take, take_over
from tests.psp_connector.loop import ended, make, running
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from services.psp_connector.psp import Charge, Outcome
    from services.psp_connector.settings import ConnectorSettings

    Accept = Callable[..., str]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> otel.Tracing:
    """Tracing is on."""
    traced = otel.Tracing("test", "http://127.0.0.1:1", SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracing", traced)
    return traced


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Callable[[str], list[ReadableSpan]]:
    """The spans of a name that have ended, oldest first."""
    return lambda name: [span for span in exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def accept_traced(accept: Accept, traced: otel.Tracing) -> Accept:
    """Accepts a transaction within a request's span."""

    def one() -> str:
        with traced.root("POST /", "", {}):
            return accept()

    return one


def assert_linked(attempts: list[ReadableSpan], sends: list[ReadableSpan]) -> None:
    """Each is a child of the one `send`, and is linked to the attempt before it."""
    [send] = sends
    assert {span.parent and span.parent.span_id for span in attempts} == {send.context.span_id}
    assert {span.context.trace_id for span in attempts} == {send.context.trace_id}
    links = [[link.context.span_id for link in span.links] for span in attempts]
    assert links == [[], *([span.context.span_id] for span in attempts[:-1])]


def test_retries_are_linked(
    client: Any,
    settings: ConnectorSettings,
    accept_traced: Accept,
    spans: Callable[[str], list[ReadableSpan]],
) -> None:
    """A retry and a replay are further attempts in the same trace; failed ones show why."""

    def fourth(_charge: Charge, call: int) -> Outcome:
        return Captured("pi_1") if call > 3 else Transient("HTTP 500")

    transaction_id = accept_traced()
    with running(make(client, settings, FakePsp(fourth))):
        wait_until(lambda: ended(client, transaction_id))
        letters = DeadLetters(client)
        [(letter, _)] = letters.all()
        assert letters.replay(letter) == "done"
        wait_until(
            lambda: client.hget(store.WHOLE.transaction(transaction_id), "status") == "captured"
        )
    attempts = spans("process queue")
    outcomes = [span.attributes["platform.outcome"] for span in attempts if span.attributes]
    assert outcomes == ["retry", "retry", "failed", "captured"]
    assert [span.status.is_ok for span in attempts] == [False, False, False, True]
    assert_linked(attempts, spans("send queue"))
    assert (len(spans("retry")), len(spans("finish")), len(spans("wait queue"))) == (2, 2, 4)


def test_a_take_over_is_linked(
    client: Any,
    settings: ConnectorSettings,
    accept_traced: Accept,
    spans: Callable[[str], list[ReadableSpan]],
) -> None:
    """The connector that takes over begins a new attempt, linked to that of the dead one."""
    accept_traced()
    first = Queue(client, settings, "one")
    first.join()
    [lost] = take(first)
    client.delete(store.WHOLE.lease("one"))
    second = Queue(client, settings, "two")
    second.join()
    [taken] = take_over(second)
    for work in (lost, taken):
        work.span.end()
    assert_linked(spans("process queue"), spans("send queue"))


def test_a_swept_transaction_stays_in_its_trace(
    client: Any,
    settings: ConnectorSettings,
    accept_traced: Accept,
    spans: Callable[[str], list[ReadableSpan]],
) -> None:
    """Its new entry has the traceparent of its record."""
    accept_traced()
    queue = Queue(client, settings, "one")
    queue.join()
    client.delete(store.WHOLE.queue)
    queue.join()
    assert len(Sweep(client).step()) == 1
    [work] = take(queue)
    work.span.end()
    assert_linked(spans("process queue"), spans("send queue"))


def test_what_is_not_traced_leaves_nothing_in_redis(client: Any, accept: Accept) -> None:
    """Neither the record nor the log fields have a trace."""
    record = client.hgetall(store.WHOLE.transaction(accept()))
    assert "traceparent" not in record
