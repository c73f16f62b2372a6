"""Traces of a whole payment, and the cost of an endpoint that is down or silent."""

import re
import time
from functools import partial

from devtools.console import waterfall
from devtools.console.waterfall import Span
from tests.receiver import Receiver, receiver
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
OUTAGE = "traces cannot be exported"


def trace_of(received: Receiver, transaction_id: str, count: int) -> list[Span]:
    """The spans of the payment's trace, once there are this many."""

    def whole() -> list[Span] | None:
        ids = {
            span.trace_id
            for span in received.spans
            if span.name == "send queue"
            and span.attributes["platform.transaction.id"] == transaction_id
        }
        spans = [span for span in received.spans if span.trace_id in ids]
        return spans if len(spans) >= count else None

    return wait_until(whole, seconds_max=10, what="the trace")


def test_a_payment_is_one_trace() -> None:
    """From the router to `finish`, each hop is below its cause, and each process logs the id."""
    with (
        receiver() as received,
        running(OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint, LOG_FORMAT="json") as stack,
    ):
        transaction = stack.paid()
        spans = trace_of(received, transaction["id"], len(HOPS))
        rows = waterfall.rows(spans)
        found = [(row.depth, row.span.service, row.span.name) for row in rows]
        assert sorted(found) == sorted(HOPS)
        assert not any(span.is_error for span in spans)
        named = {s.service for s in spans if "platform.transaction.id" in s.attributes}
        assert named == {"core-api", "psp-connector", "psp-sandbox"}
        assert "trace" not in str(transaction)
        pattern = re.compile(f'"trace_id": ?"{spans[0].trace_id}"')
        for service in ("router", "core-api", "psp-connector", "psp-sandbox"):
            wait_until(partial(has_line, stack, service, pattern), what=service)


def has_line(stack: Stack, service: str, pattern: re.Pattern[str]) -> bool:
    return pattern.search(stack.log(service)) is not None


def test_a_silent_endpoint_delays_nothing(silent_port: int) -> None:
    """Payments and stop are not slower, and each process logs the outage once."""
    names = ("router", "auth-api", "core-api", "psp-connector")
    endpoint = f"http://127.0.0.1:{silent_port}"
    with running(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, LOG_FORMAT="json") as stack:
        stack.paid()
        stack.wait_for_log("core-api", OUTAGE)
        began = time.monotonic()
        for _ in range(10):
            assert stack.paid()["status"] == "captured"
        assert time.monotonic() - began < 5
        time.sleep(2.5)  # more than an attempt to export takes
        lines = "".join(map(stack.log, names)).splitlines()
        began = time.monotonic()
    assert time.monotonic() - began < 8
    bad = [x for x in lines if re.search("trac|otlp|export", x) and '"trace_id"' not in x]
    assert [line for line in bad if OUTAGE not in line] == []
    assert len(bad) <= 3
