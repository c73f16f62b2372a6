"""The spans of the latest payments, in a SQLite file of the state folder.

Bounded by rows and by age, so that it can run for weeks. A span is kept as it was received
(opentelemetry/proto/trace/v1/trace.proto), beside the columns that it is looked up by.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.trace.v1 import trace_pb2

from devtools.console.waterfall import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    from services.common.clock import Clock

TRANSACTION = "platform.transaction.id"
# Some 25,000 payments, in a file of up to 150 MB.
ROWS_MAX = 300_000
DAYS_MAX = 7
# Deleted with each insertion at most, so that none takes long.
_SWEEP_ROWS_MAX = 5_000
# Of one payment. One that was replayed often has many traces, one that was retried many spans.
TRACES_MAX = 50
SPANS_MAX = 2_000
_BUSY_SECONDS_MAX = 2
_KINDS = ("", "internal", "server", "client", "producer", "consumer")

_SETUP = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -2000;
CREATE TABLE IF NOT EXISTS spans (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    received_seconds INTEGER NOT NULL,
    trace_id BLOB NOT NULL,
    transaction_id TEXT,
    service TEXT NOT NULL,
    span BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS spans_by_trace ON spans (trace_id);
CREATE INDEX IF NOT EXISTS spans_by_transaction ON spans (transaction_id)
    WHERE transaction_id IS NOT NULL;
"""


class SpanStore:
    """One connection for all threads, with a lock: SQLite serializes writes anyway."""

    def __init__(
        self,
        path: Path,
        *,
        rows_max: int = ROWS_MAX,
        days_max: float = DAYS_MAX,
        clock: Clock = time.time,
    ) -> None:
        self._lock = threading.Lock()
        self._rows_max = rows_max
        self._seconds_max = days_max * 86_400
        self._clock = clock
        try:
            self._connection = _open(path)
        except sqlite3.DatabaseError:  # damaged: the spans of past payments can be done without
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
            self._connection = _open(path)

    def add(self, request: ExportTraceServiceRequest) -> None:
        """Stores the request's spans and deletes those beyond the bounds.

        Raises:
            sqlite3.Error: the disk is full, say.
        """
        now = int(self._clock())
        rows = list(_rows(request, now))
        with self._use() as connection:
            connection.executemany(
                "INSERT INTO spans (received_seconds, trace_id, transaction_id, service, span)"
                " VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            self._sweep(connection, now)

    def _sweep(self, connection: sqlite3.Connection, now: int) -> None:
        """Deletes the oldest spans beyond the bounds. Sequence and time of receipt grow alike."""
        first, received_seconds, last = connection.execute(
            "SELECT min(sequence), received_seconds, (SELECT max(sequence) FROM spans) FROM spans"
        ).fetchone()
        oldest_seconds = now - self._seconds_max
        if first is None or (first > last - self._rows_max and received_seconds >= oldest_seconds):
            return
        connection.execute(
            "DELETE FROM spans WHERE sequence < ? AND (sequence <= ? OR received_seconds < ?)",
            (first + _SWEEP_ROWS_MAX, last - self._rows_max, oldest_seconds),
        )

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace, by their start."""
        with self._use() as connection:
            return _spans(connection, [bytes.fromhex(trace_id)])

    def of_transaction(self, transaction_id: str) -> list[Span]:
        """The spans of all traces that changed a transaction, not of those that only read it."""
        with self._use() as connection:
            found = connection.execute(
                "SELECT trace_id, service, span FROM spans WHERE transaction_id = ?"
                " ORDER BY sequence LIMIT ?",
                (transaction_id, SPANS_MAX),
            )
            traces = {row[0]: None for row in found if not _reads(_span(*row))}
            return _spans(connection, list(traces)[-TRACES_MAX:])

    def count(self) -> int:
        """The number of spans."""
        with self._use() as connection:
            return int(connection.execute("SELECT count(*) FROM spans").fetchone()[0])

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection


def _open(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    path.chmod(0o600)  # SQLite gives its other files the mode of this one
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS_MAX, check_same_thread=False)
    connection.executescript(_SETUP)
    return connection


def _rows(
    request: ExportTraceServiceRequest, now: int
) -> Iterator[tuple[int, bytes, str | None, str, bytes]]:
    for resource in request.resource_spans:
        service = _text(resource.resource.attributes, "service.name") or "unknown"
        for scope in resource.scope_spans:
            for span in scope.spans:
                transaction_id = _text(span.attributes, TRANSACTION)
                yield now, span.trace_id, transaction_id, service, span.SerializeToString()


def _text(attributes: Iterable[KeyValue], key: str) -> str | None:
    for attribute in attributes:
        if attribute.key == key:
            return attribute.value.string_value or None
    return None


def _spans(connection: sqlite3.Connection, trace_ids: list[bytes]) -> list[Span]:
    found = connection.execute(
        "SELECT trace_id, service, span FROM spans WHERE trace_id IN"  # noqa: S608 - marks alone
        f" ({','.join('?' * len(trace_ids))}) LIMIT ?",
        (*trace_ids, SPANS_MAX),
    )
    # An exporter that got no response sends its spans again.
    unique = {(span.trace_id, span.span_id): span for span in (_span(*row) for row in found)}
    return sorted(unique.values(), key=lambda span: (span.start_ns, -span.end_ns))


def _span(trace_id: bytes, service: str, encoded: bytes) -> Span:
    span = trace_pb2.Span.FromString(encoded)
    return Span(
        trace_id=trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name,
        kind=_KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else "",
        start_ns=span.start_time_unix_nano,
        end_ns=max(span.end_time_unix_nano, span.start_time_unix_nano),
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes={one.key: _value(one.value) for one in span.attributes}
        | ({"status": span.status.message} if span.status.message else {}),
        links=tuple(link.trace_id.hex() for link in span.links),
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return {one.key: _value(one.value) for one in value.kvlist_value.values}
    if kind == "bytes_value":
        return value.bytes_value.hex()
    return getattr(value, kind) if kind else None


def _reads(span: Span) -> bool:
    return span.attributes.get("http.request.method") in {"GET", "HEAD"}
