"""`merchant trace`: where a transaction's time went, from the console's store."""

import json
from pathlib import Path

from devtools.console.spans import FILE, SpanStore
from tests.devtools.console.traces import payment
from tests.devtools.merchant.conftest import RECORD, merchant
from tests.devtools.merchant.platform import Stranger

PAYMENT = "5d9c5f6e-2a2b-4f5e-9a5a-0c6b8d1f7e11"
TRACE_ID = "0123456789abcdef" * 2
PLATFORM = "http://127.0.0.1:2000"


def trace(state: Path) -> list[str]:
    """The output, with single spaces; the platform answers all requests with alice's payment."""
    server = Stranger(200, json.dumps(RECORD | {"id": PAYMENT}).encode(), PLATFORM)
    args = ("trace", PAYMENT, "--as", "alice", "--url", PLATFORM)
    outcome = merchant(*args, servers=(server,), environ={"PLATFORM_STATE": str(state)})
    assert (outcome.code, outcome.stderr) == (0, "")
    return [" ".join(line.split()) for line in outcome.lines]


def test_each_span_has_a_row(tmp_path: Path) -> None:
    """The rows go from the router to the second attempt, with the error of the first."""
    store = SpanStore(tmp_path / FILE)
    store.add(payment(PAYMENT, attempts=2, trace_id=bytes.fromhex(TRACE_ID)).request)
    assert trace(tmp_path) == [
        f"transaction {PAYMENT}",
        f"trace {TRACE_ID}",
        "+0.0 router 4.1 ms POST /transactions",
        "+0.6 core-api 3.0 ms POST /",
        "+1.2 core-api 1.2 ms send queue",
        "+3.0 psp-connector 9.0 ms process queue: HTTP 500",
        "+4.0 psp-connector 6.5 ms POST /v1/payment_intents: HTTP 500",
        "+5.0 psp-sandbox 4.5 ms POST /v1/payment_intents: HTTP 500",
        "+24.0 psp-connector 9.0 ms process queue",
        "+25.0 psp-connector 6.5 ms POST /v1/payment_intents",
        "+26.0 psp-sandbox 4.5 ms POST /v1/payment_intents",
        "captured USD 12.50 12 points in 37 ms",
    ]


def test_without_spans_the_record_is_shown(tmp_path: Path) -> None:
    """It shows the record's timeline and outcome, and why there are no spans."""
    for _has_store in (False, True):
        lines = trace(tmp_path)
        assert lines[1:3] == ["queued +0 ms", "captured USD 12.50 12 points in 37 ms"]
        assert lines[3].startswith("note: the console has no spans of it")
        SpanStore(tmp_path / FILE)
