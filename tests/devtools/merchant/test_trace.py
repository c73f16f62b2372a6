"""`merchant trace`: where a transaction's time went, from the console's store."""

import json
from pathlib import Path

import pytest

from devtools.console.receiver import as_document
from devtools.console.spans import SpanStore
from devtools.merchant.trace import console_url
from tests.devtools.console.traces import payment
from tests.devtools.merchant.conftest import RECORD, merchant
from tests.devtools.merchant.platform import Stranger

PAYMENT = "5d9c5f6e-2a2b-4f5e-9a5a-0c6b8d1f7e11"
TRACE_ID = "0123456789abcdef" * 2
PLATFORM = "http://127.0.0.1:2000"


def trace(*consoles: Stranger) -> list[str]:
    """The output, with single spaces; the platform answers all requests with alice's payment."""
    servers = Stranger(200, json.dumps(RECORD | {"id": PAYMENT}).encode(), PLATFORM), *consoles
    outcome = merchant("trace", PAYMENT, "--as", "alice", "--url", PLATFORM, servers=servers)
    assert (outcome.code, outcome.stderr) == (0, "")
    return [" ".join(line.split()) for line in outcome.lines]


def test_each_span_has_a_row(tmp_path: Path) -> None:
    """The rows go from the router to the second attempt, with the error of the first."""
    store = SpanStore(tmp_path / "spans")
    store.add(payment(PAYMENT, attempts=2, trace_id=bytes.fromhex(TRACE_ID)).request)
    document = json.dumps(as_document(PAYMENT, store.of_transaction(PAYMENT))).encode()
    console = Stranger(200, document, console_url(PLATFORM))
    lines = trace(console)
    assert [request.url.path for request in console.requests] == [f"/api/traces/{PAYMENT}"]
    assert lines == [
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


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (b'{"spans": []}', "the console has no spans of it"),
        (b'{"spans": [{"name": 1}]}', "is no console of this version"),
        (b'["spans"]', "is no console of this version"),
        (None, "does not respond"),
    ],
)
def test_without_spans_the_record_is_shown(body: bytes | None, note: str) -> None:
    """It shows the record's timeline and outcome, and why there are no spans."""
    lines = trace(*([Stranger(200, body, console_url(PLATFORM))] if body else []))
    assert lines[1:3] == ["queued +0 ms", "captured USD 12.50 12 points in 37 ms"]
    assert note in lines[3]


def test_the_console_is_six_ports_from_the_router() -> None:
    """This also holds for another host, or without a port."""
    assert console_url("http://platform.localhost:9000") == "http://platform.localhost:9006"
    assert console_url("http://127.0.0.1") == "http://127.0.0.1:86"
