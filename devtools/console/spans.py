"""The spans of the latest payments, in a SQLite file of the state folder.

Bounded by rows, bytes and age, so that it can run for weeks. A span is kept as it was received
(opentelemetry/proto/trace/v1/trace.proto), next to the columns used for lookups.
"""

import contextlib
import itertools
import math
import sqlite3
import threading
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from devtools.console.waterfall import Span
from services.common.clock import Clock

TRANSACTION = "platform.transaction.id"
# Some 25,000 payments, in a file of some 150 MB.
ROWS_MAX = 300_000
BYTES_MAX = 256 * 1024 * 1024
DAYS_MAX = 7
# Most spans stored and deleted per request, so that none takes long. An exporter sends 512.
SPANS_AT_ONCE_MAX = 5_000
# At BYTES_MAX, an eighth of the file is deleted.
_SHARE = 8
# Per payment. Replays add traces, retries add spans; a page of 300 takes 3 s.
TRACES_MAX = 50
SPANS_MAX = 300
# Spans read per trace or payment: one trace may contain many payments of a client.
_EXAMINED_MAX = 2_000
# Per span; the rest is dropped.
ATTRIBUTES_MAX = 128
CHARACTERS_MAX = 4_000
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
        bytes_max: int = BYTES_MAX,
        days_max: float = DAYS_MAX,
        clock: Clock = time.time,
    ) -> None:
        self._lock = threading.Lock()
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._seconds_max = days_max * 86_400
        self._clock = clock
        try:
            self._connection = _open(path)
        except sqlite3.OperationalError:  # locked or disk full: retry later
            raise
        except sqlite3.DatabaseError:  # damaged: past spans are expendable
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
            self._connection = _open(path)
        weakref.finalize(self, self._connection.close)  # at the latest when the process ends

    def add(self, request: ExportTraceServiceRequest) -> None:
        """Stores the request's first spans and deletes those beyond the bounds.

        Raises:
            sqlite3.Error: for example, the disk is full.
        """
        now = int(self._clock())
        rows = list(itertools.islice(_rows(request, now), SPANS_AT_ONCE_MAX))
        with self._use() as connection:
            connection.executemany(
                "INSERT INTO spans (received_seconds, trace_id, transaction_id, service, span)"
                " VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            self._sweep(connection, now)

    def _sweep(self, connection: sqlite3.Connection, now: int) -> None:
        """Deletes the oldest spans beyond the bounds. Sequence order is order of receipt."""
        first, received_seconds, last = connection.execute(
            "SELECT min(sequence), received_seconds, (SELECT max(sequence) FROM spans) FROM spans"
        ).fetchone()
        oldest_seconds = now - self._seconds_max
        if first is None:
            return
        if self._bytes(connection) > self._bytes_max:
            count = (last - first) // _SHARE + 1
            connection.execute("DELETE FROM spans WHERE sequence < ?", (first + count,))
        elif first <= last - self._rows_max or received_seconds < oldest_seconds:
            connection.execute(
                "DELETE FROM spans WHERE sequence < ? AND (sequence <= ? OR received_seconds < ?)",
                (first + SPANS_AT_ONCE_MAX, last - self._rows_max, oldest_seconds),
            )

    def _bytes(self, connection: sqlite3.Connection) -> int:
        """Bytes in use; the file itself never shrinks."""
        count, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((count - free) * size)

    def of_transaction(self, transaction_id: str) -> list[Span]:
        """The spans of all traces that changed a transaction, not of those that only read it."""
        with self._use() as connection:
            found = connection.execute(
                "SELECT trace_id, service, span, sequence FROM spans WHERE transaction_id = ?"
                " ORDER BY sequence LIMIT ?",
                (transaction_id, _EXAMINED_MAX),
            )
            own: dict[bytes, dict[str, int]] = {}
            parts: list[Span] = []
            for trace_id, service, encoded, sequence in found:
                span = _span(trace_id, service, encoded)
                if not _reads(span):
                    own.setdefault(trace_id, {})[span.span_id] = sequence
            for trace_id, ids in list(own.items())[-TRACES_MAX:]:
                trace = _spans(connection, trace_id, transaction_id, max(ids.values()))
                parts += _around(ids, trace)
            parts.sort(key=lambda span: (span.start_ns, -span.end_ns))
            return parts[:SPANS_MAX]

    @contextlib.contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection


def _open(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    path.chmod(0o600)  # SQLite creates its other files with the same mode
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS_MAX, check_same_thread=False)
    try:
        connection.executescript(_SETUP)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _rows(
    request: ExportTraceServiceRequest, now: int
) -> Iterator[tuple[int, bytes, str | None, str, bytes]]:
    for resource in request.resource_spans:
        service = _text(resource.resource.attributes, "service.name") or "unknown"
        for scope in resource.scope_spans:
            for span in scope.spans:
                transaction_id = _text(span.attributes, TRANSACTION)
                if span.trace_id and span.span_id:  # else it is none
                    yield now, span.trace_id, transaction_id, service, span.SerializeToString()


def _text(attributes: Iterable[KeyValue], key: str) -> str | None:
    for attribute in attributes:
        if attribute.key == key:
            return attribute.value.string_value or None
    return None


def _spans(
    connection: sqlite3.Connection, trace_id: bytes, transaction_id: str, near: int
) -> list[Span]:
    """The spans of a trace without those of other transactions.

    Those of the transaction first, then those received around the sequence `near`.
    """
    found = connection.execute(
        "SELECT trace_id, service, span FROM spans"
        " WHERE trace_id = :trace AND ifnull(transaction_id, :id) = :id"
        " ORDER BY transaction_id IS NULL, abs(sequence - :near) LIMIT :limit",
        {"trace": trace_id, "id": transaction_id, "near": near, "limit": _EXAMINED_MAX},
    )
    # An exporter that got no response sends its spans again.
    return list({span.span_id: span for span in (_span(*row) for row in found)}.values())


def _around(own: Collection[str], spans: Sequence[Span]) -> list[Span]:
    """The spans with the ids `own`, their ancestors and their descendants."""
    parents = {span.span_id: span.parent_id for span in spans}
    children: dict[str, list[str]] = {}
    for span in spans:
        children.setdefault(span.parent_id, []).append(span.span_id)
    found = set()
    for id_ in own:
        above, below = id_, [id_]
        while (above := parents.get(above, "")) and above not in found:
            found.add(above)
        while below:
            found.add(one := below.pop())
            below += set(children.get(one, ())) - found
    return [span for span in spans if span.span_id in found]


def _span(trace_id: bytes, service: str, encoded: bytes) -> Span:
    span = trace_pb2.Span.FromString(encoded)
    return Span(
        trace_id=trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name[:CHARACTERS_MAX],
        kind=_KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else "",
        start_ns=span.start_time_unix_nano,
        end_ns=max(span.end_time_unix_nano, span.start_time_unix_nano),
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes={one.key: _value(one.value) for one in span.attributes[:ATTRIBUTES_MAX]}
        | ({"status": span.status.message[:CHARACTERS_MAX]} if span.status.message else {}),
        links=tuple(link.trace_id.hex() for link in span.links[:ATTRIBUTES_MAX]),
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values[:ATTRIBUTES_MAX]]
    found = getattr(value, kind) if kind else None
    if isinstance(found, float) and not math.isfinite(found):
        return str(found)  # JSON has no such number
    return found if isinstance(found, int | float | None) else str(found)[:CHARACTERS_MAX]


def _reads(span: Span) -> bool:
    return span.attributes.get("http.request.method") in {"GET", "HEAD"}
