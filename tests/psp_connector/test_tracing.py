"""Every attempt is in its payment's trace, linked to the previous attempt."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.common import otel, tracing
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.psp import Captured, Charge, Outcome, Transient
from tests.psp_connector.payments import STORE, FakePsp, Payments, take, take_over
from tests.support import wait_until

Spans = Callable[[str], list[ReadableSpan]]


@pytest.fixture
def spans(payments: Payments, monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The ended spans with a name, oldest first, once one payment is accepted in a span."""
    exporter = InMemorySpanExporter()
    traced = otel.Tracing("test", "http://127.0.0.1:1", SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracing", traced)
    with traced.tracer.start_as_current_span("POST /"):
        payments.accept()
    return lambda name: [span for span in exporter.get_finished_spans() if span.name == name]


def assert_linked(attempts: list[ReadableSpan], sends: list[ReadableSpan]) -> None:
    """Asserts that each is a child of the one `send`, and linked to the previous attempt."""
    [send] = sends
    assert {span.parent and span.parent.span_id for span in attempts} == {send.context.span_id}
    assert {span.context.trace_id for span in attempts} == {send.context.trace_id}
    links = [[link.context.span_id for link in span.links] for span in attempts]
    assert links == [[], *([span.context.span_id] for span in attempts[:-1])]


def test_retries_are_linked(client: Any, payments: Payments, spans: Spans) -> None:
    """Retries and replays are attempts in the same trace; failed ones have the reason."""

    def fourth(_charge: Charge, call: int) -> Outcome:
        return Captured("pi_1") if call > 3 else Transient("HTTP 500")

    with payments.running(FakePsp(fourth)):
        letters = DeadLetters(client)
        [(letter, _)] = wait_until(lambda: list(letters.all()))
        assert letters.replay(letter) == "done"
        wait_until(lambda: payments.points() == 12)
    attempts = spans("process queue")
    outcomes = [span.attributes["platform.outcome"] for span in attempts if span.attributes]
    assert outcomes == ["retry", "retry", "failed", "captured"]
    assert [span.status.is_ok for span in attempts] == [False, False, False, True]
    assert_linked(attempts, spans("send queue"))
    assert (len(spans("retry")), len(spans("finish")), len(spans("wait queue"))) == (2, 2, 4)


def test_a_take_over_is_linked(client: Any, payments: Payments, spans: Spans) -> None:
    """A take-over starts an attempt that is linked to the lost one."""
    [lost] = take(payments.queue("one"))
    client.delete(STORE.lease("one"))
    [taken] = take_over(payments.queue("two"))
    for work in (lost, taken):
        work.span.end()
    assert_linked(spans("process queue"), spans("send queue"))


def test_an_error_has_no_secret(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of an exception may come from the PSP."""
    monkeypatch.setattr(tracing, "_redacted", lambda text: text.replace("sk_test", "<secret>"))
    parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    child = tracing.span("child", parent=parent)
    with pytest.raises(ValueError, match="sk_test"), tracing.use(child):
        raise ValueError("sk_test")
    [span] = spans("child")
    assert span.status.description == "ValueError: <secret>"


def test_what_is_not_traced_leaves_nothing_in_redis(client: Any, payments: Payments) -> None:
    """Without a trace, neither the record nor log fields have one."""
    assert "traceparent" not in client.hgetall(STORE.transaction(payments.accept()))
