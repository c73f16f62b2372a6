"""Traces of a whole payment, and the cost of an endpoint that is down or silent."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.receiver import Receiver, Span, receiver
from tests.stack.stack import Stack, running
from tests.support import wait_until

# Depth in the tree, service and name: all hops of a payment at the first attempt.
HOPS = [
    (0, "router", "POST /transactions"),
    (1, "core-api", "POST /"),
    (2, "core-api", "send queue"),
    (3, "psp-connector", "wait queue"),
    (3, "psp-connector", "process queue"),
    (4, "psp-connector", "POST /v1/payment_intents"),
    (5, "psp-sandbox", "POST /v1/payment_intents"),
    (4, "psp-connector", "finish"),
]


@pytest.fixture(scope="module")
def traced() -> Iterator[tuple[Stack, Receiver]]:
    with (
        receiver() as received,
        running(OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint, LOG_FORMAT="json") as stack,
    ):
        yield stack, received


def paid(stack: Stack) -> dict[str, Any]:
    """A final payment."""
    return stack.ended(stack.pay().json()["id"])


def has_line(stack: Stack, service: str, pattern: re.Pattern[str]) -> bool:
    return pattern.search(stack.log(service)) is not None


def tree(spans: list[Span]) -> list[tuple[int, str, str]]:
    ids = {span.id: span for span in spans}

    def depth(span: Span) -> int:
        return 1 + depth(ids[span.parent]) if span.parent in ids else 0

    return [(depth(span), span.service, span.name) for span in spans]


def trace_of(received: Receiver, transaction_id: str, count: int) -> list[Span]:
    """The spans of the payment's trace, once there are this many."""

    def whole() -> list[Span] | None:
        ids = {
            span.trace_id
            for span in received.spans
            if span.name == "send queue"
            and span.attributes["platform.transaction.id"] == transaction_id
        }
        spans = received.trace(ids.pop()) if ids else []
        return spans if len(spans) >= count else None

    return wait_until(whole, seconds_max=10, what="the trace")


def test_a_payment_is_one_trace(traced: tuple[Stack, Receiver]) -> None:
    """From the router to `finish`, each hop is below its cause."""
    stack, received = traced
    transaction = paid(stack)
    spans = trace_of(received, transaction["id"], len(HOPS))
    assert sorted(tree(spans)) == sorted(HOPS)
    assert not any(span.failed for span in spans)
    named = {s.service for s in spans if "platform.transaction.id" in s.attributes}
    assert named == {"core-api", "psp-connector", "psp-sandbox"}


def test_each_process_logs_the_trace(traced: tuple[Stack, Receiver]) -> None:
    """`trace_id` links spans to log lines of all processes; no response has it."""
    stack, received = traced
    transaction = paid(stack)
    assert "trace" not in str(transaction)
    trace_id = trace_of(received, transaction["id"], len(HOPS))[0].trace_id
    pattern = re.compile(f'"trace_id": ?"{trace_id}"')
    for service in ("router", "core-api", "psp-connector", "psp-sandbox"):
        wait_until(partial(has_line, stack, service, pattern), what=service)


@pytest.fixture(params=["dead", "silent"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address where nothing listens, or one that accepts connections and never responds."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen(100)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_without_a_working_endpoint_payments_continue(endpoint: str) -> None:
    """Payments and stop are not slower, and the outage is logged once."""
    with running(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, LOG_FORMAT="json") as stack:
        for _ in range(3):
            paid(stack)
            time.sleep(1)
        began = time.monotonic()
        for _ in range(10):
            assert paid(stack)["status"] == "captured"
        assert time.monotonic() - began < 5
        time.sleep(2.5)
        log = "".join(map(stack.log, ("router", "auth-api", "core-api", "psp-connector")))
        began = time.monotonic()
    assert time.monotonic() - began < 8
    lines = [line for line in log.splitlines() if re.search("trac|otlp|export", line)]
    bad = [line for line in lines if '"trace_id"' not in line]
    assert [line for line in bad if "traces cannot be exported" not in line] == []
    assert len(bad) <= 3
