"""The spans of the latest payments, in a SQLite file of the state folder.

Bounded by rows, bytes and age, so that it can run for weeks. A span is kept as it was received
(opentelemetry/proto/trace/v1/trace.proto), next to the columns used for lookups.
"""

import itertools
import math
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from devtools.console.waterfall import Span
from services.common.clock import Clock

FILE = "console.sqlite"  # in the state folder
TRANSACTION = "platform.transaction.id"
# About 25,000 payments, in a file of about 150 MB.
ROWS_MAX = 300_000
BYTES_MAX = 256 * 1024 * 1024
SECONDS_MAX = 7 * 86_400
# Spans stored, and spans deleted, per request, which bounds its time. An exporter sends 512.
SPANS_AT_ONCE_MAX = 5_000
# At BYTES_MAX, an eighth of the file is deleted.
_SHARE = 8
# Per payment: replays and retries add spans; a page of 300 takes 3 s.
SPANS_MAX = 300
# Per span; the rest is dropped.
ATTRIBUTES_MAX = 128
CHARACTERS_MAX = 4_000
_BUSY_SECONDS_MAX = 2
_log = structlog.get_logger()
_KINDS = ("", "internal", "server", "client", "producer", "consumer")

_SETUP = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -2000;
CREATE TABLE IF NOT EXISTS span (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    received_seconds INTEGER NOT NULL,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    parent_id BLOB NOT NULL,
    transaction_id TEXT, -- unless it only reads the transaction
    service TEXT NOT NULL,
    encoded BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS span_by_id ON span (trace_id, span_id);
CREATE INDEX IF NOT EXISTS span_by_parent ON span (trace_id, parent_id);
CREATE INDEX IF NOT EXISTS span_by_transaction ON span (transaction_id)
    WHERE transaction_id IS NOT NULL;
"""
# An exporter that got no response sends its spans again.
_INSERT = """
INSERT OR IGNORE INTO
    span (received_seconds, trace_id, span_id, parent_id, transaction_id, service, encoded)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_BOUNDS = """
SELECT min(sequence), received_seconds, (SELECT max(sequence) FROM span),
    (SELECT (page_count - freelist_count) * page_size -- in use; the file itself never shrinks
        FROM pragma_page_count, pragma_freelist_count, pragma_page_size)
FROM span
"""
# The latest spans with the transaction's id, their ancestors and their descendants. One trace of a
# client may have many payments. UNION drops duplicates, so that a cycle ends.
_OF_TRANSACTION = f"""
WITH RECURSIVE
tagged (trace_id, span_id) AS (
    SELECT trace_id, span_id FROM span WHERE transaction_id = :id
    ORDER BY sequence DESC LIMIT {SPANS_MAX}
),
ancestors (trace_id, span_id) AS (
    SELECT * FROM tagged
    UNION SELECT trace_id, parent_id FROM ancestors JOIN span USING (trace_id, span_id)
    LIMIT {2 * SPANS_MAX}
),
descendants (trace_id, span_id) AS (
    SELECT * FROM tagged
    UNION SELECT span.trace_id, span.span_id FROM descendants JOIN span
    ON (span.trace_id, span.parent_id) = (descendants.trace_id, descendants.span_id)
    LIMIT {2 * SPANS_MAX}
)
SELECT service, encoded
FROM (SELECT * FROM ancestors UNION SELECT * FROM descendants) JOIN span USING (trace_id, span_id)
ORDER BY sequence LIMIT {SPANS_MAX}
"""  # noqa: S608  numbers


class SpanStore:
    """One connection for all threads, with a lock: SQLite serializes writes anyway."""

    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._path = path
        self._connection: sqlite3.Connection | None = None
        try:
            self._opened()
        except sqlite3.OperationalError as error:  # locked or disk full
            _log.warning("spans are not stored until the file can be opened", reason=str(error))

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = _open(self._path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # damaged: past spans are expendable
                for file in self._path.parent.glob(f"{self._path.name}*"):
                    file.unlink()
                self._connection = _open(self._path)
            weakref.finalize(self, self._connection.close)  # at the latest when the process ends
        return self._connection

    def add(self, request: ExportTraceServiceRequest) -> None:
        """Stores the request's first spans and deletes those beyond the bounds.

        Raises:
            sqlite3.Error: for example, the disk is full.
        """
        now = int(self._clock())
        rows = list(itertools.islice(_rows(request, now), SPANS_AT_ONCE_MAX))
        with self._lock, self._opened() as connection:
            connection.executemany(_INSERT, rows)
            # Sequence order is order of receipt.
            first, received_seconds, last, bytes_used = connection.execute(_BOUNDS).fetchone()
            if first is None:
                return
            kept_from = last - ROWS_MAX + 1
            if bytes_used > BYTES_MAX:
                kept_from = max(kept_from, first + (last - first) // _SHARE + 1)
            if first < kept_from or received_seconds < now - SECONDS_MAX:
                connection.execute(
                    "DELETE FROM span"
                    " WHERE sequence < ? AND (sequence < ? OR received_seconds < ?)",
                    (first + SPANS_AT_ONCE_MAX, kept_from, now - SECONDS_MAX),
                )

    def of_transaction(self, transaction_id: str) -> list[Span]:
        """The spans of all traces that changed a transaction, not of those that only read it."""
        if self._connection is None:
            return []
        with self._lock, self._connection as connection:
            rows = connection.execute(_OF_TRANSACTION, {"id": transaction_id}).fetchall()
        return [decode(service, trace_pb2.Span.FromString(span)) for service, span in rows]


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.touch(mode=0o600)
        path.chmod(0o600)  # SQLite creates its other files with the same mode
    except OSError as error:
        raise sqlite3.OperationalError(str(error)) from None
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS_MAX, check_same_thread=False)
    try:
        connection.executescript(_SETUP)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def by_service(request: ExportTraceServiceRequest) -> Iterator[tuple[str, trace_pb2.Span]]:
    """The request's spans, each with its service."""
    for resource in request.resource_spans:
        service = _text(resource.resource.attributes, "service.name") or "unknown"
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield service, span


def _rows(request: ExportTraceServiceRequest, now: int) -> Iterator[tuple[Any, ...]]:
    for service, span in by_service(request):
        reads = _text(span.attributes, "http.request.method") in {"GET", "HEAD"}
        transaction_id = None if reads else _text(span.attributes, TRANSACTION)
        ids = span.trace_id, span.span_id, span.parent_span_id
        if span.trace_id and span.span_id:  # a span needs both
            yield now, *ids, transaction_id, service, span.SerializeToString()


def _text(attributes: Iterable[KeyValue], key: str) -> str | None:
    for attribute in attributes:
        if attribute.key == key:
            return attribute.value.string_value or None
    return None


def decode(service: str, span: trace_pb2.Span) -> Span:
    """A span in the console's form, with long values cut."""
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name[:CHARACTERS_MAX],
        kind=_KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else "",
        start_ns=span.start_time_unix_nano,
        end_ns=max(span.end_time_unix_nano, span.start_time_unix_nano),
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes={pair.key: _value(pair.value) for pair in span.attributes[:ATTRIBUTES_MAX]}
        | ({"status": span.status.message[:CHARACTERS_MAX]} if span.status.message else {}),
        links=tuple(link.trace_id.hex() for link in span.links[:ATTRIBUTES_MAX]),
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values[:ATTRIBUTES_MAX]]
    scalar = getattr(value, kind) if kind else None
    if isinstance(scalar, float) and not math.isfinite(scalar):
        return str(scalar)  # JSON has no such number
    return scalar if isinstance(scalar, int | float | None) else str(scalar)[:CHARACTERS_MAX]
