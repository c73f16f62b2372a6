"""The store of spans: lookups, bounds, privacy and recovery."""

import contextlib
import sqlite3
import stat
import uuid
from pathlib import Path

import pytest

from devtools.console import spans as spans_module
from devtools.console import waterfall
from devtools.console.spans import SpanStore
from tests.devtools.console.traces import Trace, about, payment

ID = str(uuid.UUID(int=7))


def names(store: SpanStore, transaction_id: str = ID) -> list[str]:
    return [f"{span.service} {span.name}" for span in store.of_transaction(transaction_id)]


def count(path: Path) -> int:
    """Number of spans in a store's file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM span").fetchone()[0])


@pytest.fixture
def store(tmp_path: Path) -> SpanStore:
    return SpanStore(tmp_path / "console.sqlite")


def test_a_payment_has_all_spans_of_its_trace(store: SpanStore) -> None:
    """A payment has the spans of router and sandbox, which lack the transaction's id."""
    trace = payment(ID)
    store.add(trace.request)
    store.add(trace.request)  # an exporter without an answer sends again
    store.add(payment(str(uuid.UUID(int=8))).request)
    assert names(store) == [
        "router POST /transactions",
        "core-api POST /",
        "core-api send queue",
        "psp-connector process queue",
        "psp-connector POST /v1/payment_intents",
        "psp-sandbox POST /v1/payment_intents",
    ]
    assert store.of_transaction(ID)[1].attributes == about(ID, "POST")


def test_a_replay_has_its_trace_and_a_reader_none(store: SpanStore) -> None:
    """A payment has the traces of its attempts, in order, but not those of status requests."""
    first, asked, replay = payment(ID), Trace(), Trace(start_ns=payment(ID).start_ns + 10**12)
    asked.span("core-api", "GET /{id}", 0, 1, about(ID, "GET"))
    replay.span("psp-connector", "process queue", 0, 1, about(ID), links=[first.trace_id])
    for trace in (first, asked, replay):
        store.add(trace.request)
    assert len(names(store)) == 7
    assert store.of_transaction(ID)[-1].links == (first.trace_id.hex(),)
    assert [row.depth for row in waterfall.rows(store.of_transaction(ID))] == [0, 1, 2, 3, 4, 5, 0]


def test_payments_in_one_trace_are_kept_apart(store: SpanStore) -> None:
    """A client may send several payments and status requests within one trace."""
    trace = Trace()
    client = trace.span("client", "test run", 0, 9000)
    for number in range(300):
        id_ = str(uuid.UUID(int=number))
        router = trace.span("router", "POST /transactions", number, number + 2, parent=client)
        core = trace.span("core-api", "POST /", number, number + 1, about(id_), parent=router)
        trace.span("psp-sandbox", "charge", number, number + 1, parent=core)
        asked = trace.span("router", "GET /transactions", number, number + 2, parent=client)
        trace.span("core-api", "GET", number, number + 1, about(id_, "GET"), parent=asked)
    store.add(trace.request)
    assert names(store) == [
        "client test run",
        "router POST /transactions",
        "core-api POST /",
        "psp-sandbox charge",
    ]


def test_the_store_is_bounded_by_rows_and_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest spans are deleted at the first bound reached."""
    monkeypatch.setattr(spans_module, "ROWS_MAX", 60)
    now = 1_800_000_000.0
    path = tmp_path / "s"
    store = SpanStore(path, lambda: now)
    for number in range(20):
        store.add(payment(str(uuid.UUID(int=number))).request)
    assert count(path) == 60
    assert names(store, str(uuid.UUID(int=9))) == []
    assert len(names(store, str(uuid.UUID(int=19)))) == 6
    now += spans_module.SECONDS_MAX + 1
    store.add(payment(ID).request)
    assert count(path) == 6


def test_the_store_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds for any size of span."""
    monkeypatch.setattr(spans_module, "BYTES_MAX", 2_000_000)
    store = SpanStore(tmp_path / "s")
    for number in range(100):
        trace = payment(str(uuid.UUID(int=number)))
        trace.span("other", "n" * 100_000, 0, 1)
        store.add(trace.request)
    assert (tmp_path / "s").stat().st_size < 2_500_000
    assert len(names(store, str(uuid.UUID(int=99)))) == 6


def test_a_request_of_many_spans_is_cut(store: SpanStore, tmp_path: Path) -> None:
    """A request stores no more spans than one deletes; spans without an id are dropped."""
    request = payment(ID).request
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(spans_module.SPANS_AT_ONCE_MAX + 1):
        spans.add()
        spans.add(trace_id=b"t" * 16, span_id=number.to_bytes(8, "big"))
    store.add(request)
    assert count(tmp_path / "console.sqlite") == spans_module.SPANS_AT_ONCE_MAX


def test_spans_survive_a_kill_and_are_private(tmp_path: Path) -> None:
    """After a kill all confirmed spans are there, and other users cannot read them."""
    path = tmp_path / "console.sqlite"
    first = SpanStore(path)
    first.add(payment(ID).request)
    assert len(names(SpanStore(path))) == 6  # while the first is still open, as after a kill
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    """The console starts with an empty store."""
    path = tmp_path / "console.sqlite"
    path.write_bytes(b"no database" * 1000)
    store = SpanStore(path)
    store.add(payment(ID).request)
    assert len(names(store)) == 6


def test_a_file_that_cannot_be_opened_now_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locked, or on a full disk, it is not damaged: the console runs without until it opens."""
    monkeypatch.setattr(spans_module, "_BUSY_SECONDS_MAX", 0)
    path = tmp_path / "console.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE kept (row)")
        other.execute("BEGIN EXCLUSIVE")
        store = SpanStore(path)
        assert names(store) == []
        with pytest.raises(sqlite3.OperationalError):
            store.add(payment(ID).request)
    store.add(payment(ID).request)
    assert len(names(store)) == 6
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM kept")


def test_a_waterfall_of_damaged_spans_ends(store: SpanStore) -> None:
    """Spans in a cycle are left out; the others are shown, also without their parent."""
    trace = payment(ID)
    spans = [found.scope_spans[0].spans[0] for found in trace.request.resource_spans]
    spans[0].parent_span_id = b"unknown."
    spans[2].parent_span_id = spans[3].span_id
    store.add(trace.request)
    rows = waterfall.rows(store.of_transaction(ID))
    assert [(row.span.name, row.depth) for row in rows] == [
        ("POST /transactions", 0),
        ("POST /", 1),
    ]
