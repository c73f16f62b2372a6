"""The sandbox's SQLite database: payments and idempotency keys.

    payment_intents    one row per payment, in order of creation; kept 30 days
    idempotency_keys   one row per key: fingerprint of its first request, number of requests, its
                       payment; kept 24 hours, as at Stripe

A payment and the binding of its key are written in one transaction, so a crash cannot separate
them. A bound key is never rebound: if two processes (a worker whose master was killed, and its
successor) charge one key, the second gets the payment of the first.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.common.clock import now_ms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.common.clock import Clock
    from services.psp_sandbox.objects import PaymentIntent

KEY_HOURS_MAX = 24
INTENT_DAYS_MAX = 30
# Expired rows deleted per table and request. A request adds at most one row, so tables shrink to
# their retention, at a bounded cost for each request.
SWEEP_COUNT_MAX = 2
# Only a process that is exiting can hold the lock, briefly.
_BUSY_SECONDS_MAX = 5

_SETUP = """
PRAGMA journal_mode = WAL;
-- A killed process loses nothing that was written to the OS; a sandbox need not survive a power
-- cut.
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS payment_intents (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL,
    status TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS payment_intents_by_key ON payment_intents (idempotency_key, status);
CREATE TABLE IF NOT EXISTS idempotency_keys (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    first_ms INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 0,
    faults INTEGER NOT NULL DEFAULT 0,
    intent_id TEXT
);
"""
_TABLES = ("payment_intents", "idempotency_keys")


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A stored idempotency key; `intent` is None until its payment exists."""

    fingerprint: str
    intent: PaymentIntent | None


@dataclass(frozen=True, slots=True)
class Page:
    """Payments, newest first, each with its idempotency key."""

    rows: list[tuple[str, PaymentIntent]]
    next_cursor: int | None


class Store:
    """One connection for all threads, with a lock: SQLite serializes writes anyway.

    Opened on first use, because SQLite connections must not cross a fork.
    """

    def __init__(self, path: Path | None, clock: Clock = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def check(self) -> None:
        """Raises `sqlite3.Error` if the database is unavailable."""
        with self._use() as connection:
            connection.execute("SELECT 1 FROM payment_intents LIMIT 1").fetchone()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def note(self, key: str, fingerprint: str) -> KnownKey:
        """Counts a payment request; returns the state of its key."""
        now = now_ms(self._clock)
        with self._use() as connection:
            _sweep(connection, now)
            connection.execute(
                "DELETE FROM idempotency_keys WHERE key = ? AND first_ms < ?",
                (key, now - KEY_HOURS_MAX * 3_600_000),
            )
            known, intent_id = connection.execute(
                "INSERT INTO idempotency_keys (key, first_ms, fingerprint, requests)"
                " VALUES (?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET requests = requests + 1"
                " RETURNING fingerprint, intent_id",
                (key, now, fingerprint),
            ).fetchone()
            return KnownKey(known, _intent(connection, intent_id) if intent_id else None)

    def note_fault(self, key: str) -> int:
        """Counts a fault of a key; returns the new count."""
        with self._use() as connection:
            row = connection.execute(
                "UPDATE idempotency_keys SET faults = faults + 1 WHERE key = ? RETURNING faults",
                (key,),
            ).fetchone()
        return int(row[0]) if row else 1

    def add(self, intent: PaymentIntent, key: str) -> PaymentIntent:
        """Stores a payment and binds its key to it.

        Returns the key's payment: if another process was first, that one, and nothing is stored.
        """
        row = (intent["id"], now_ms(self._clock), key, intent["status"], json.dumps(intent))
        with self._use() as connection:
            # Write first: that opens the transaction, so the read below is consistent.
            connection.execute(
                "UPDATE idempotency_keys SET intent_id = ? WHERE key = ? AND intent_id IS NULL",
                (intent["id"], key),
            )
            (first,) = connection.execute(
                "SELECT intent_id FROM idempotency_keys WHERE key = ?", (key,)
            ).fetchone() or (intent["id"],)
            if first != intent["id"]:
                return _intent(connection, first) or intent
            connection.execute(
                "INSERT INTO payment_intents (id, created_ms, idempotency_key, status, body)"
                " VALUES (?, ?, ?, ?, ?)",
                row,
            )
            return intent

    def get(self, intent_id: str) -> PaymentIntent | None:
        with self._use() as connection:
            return _intent(connection, intent_id)

    def sequence_of(self, intent_id: str) -> int | None:
        """The sequence number of a payment, as a cursor for `page`."""
        with self._use() as connection:
            row = connection.execute(
                "SELECT sequence FROM payment_intents WHERE id = ?", (intent_id,)
            ).fetchone()
        return int(row[0]) if row else None

    def page(self, limit: int, *, before: int | None = None, key: str | None = None) -> Page:
        """The newest `limit` payments, optionally before a cursor and of one key."""
        query = (
            "SELECT sequence, idempotency_key, body FROM payment_intents"
            " WHERE (:before IS NULL OR sequence < :before)"
            " AND (:key IS NULL OR idempotency_key = :key)"
            " ORDER BY sequence DESC LIMIT :rows"
        )
        with self._use() as connection:
            rows = connection.execute(
                query, {"before": before, "key": key, "rows": limit + 1}
            ).fetchall()
        more = len(rows) > limit
        rows = rows[:limit]
        return Page([(row[1], json.loads(row[2])) for row in rows], rows[-1][0] if more else None)

    def key_counts(self, keys: set[str]) -> dict[str, dict[str, int]]:
        """The numbers of requests and captures of each key."""
        query = (
            "SELECT (SELECT requests FROM idempotency_keys WHERE key = :key),"
            " (SELECT count(*) FROM payment_intents"
            "  WHERE idempotency_key = :key AND status = 'succeeded')"
        )
        with self._use() as connection:
            counts = {key: connection.execute(query, {"key": key}).fetchone() for key in keys}
        return {
            key: {"requests": requests or 0, "captured": captured}
            for key, (requests, captured) in sorted(counts.items())
        }

    def captured(self) -> dict[str, int]:
        """Captured amounts by currency."""
        with self._use() as connection:
            rows = connection.execute(
                "SELECT json_extract(body, '$.currency'), sum(json_extract(body, '$.amount'))"
                " FROM payment_intents WHERE status = 'succeeded' GROUP BY 1 ORDER BY 1"
            )
            return dict(rows.fetchall())

    def counts(self) -> dict[str, Any]:
        """Payments by status, number of requests, number of keys captured more than once."""
        with self._use() as connection:
            by_status = connection.execute(
                "SELECT status, count(*) FROM payment_intents GROUP BY status"
            ).fetchall()
            (requests,) = connection.execute(
                "SELECT coalesce(sum(requests), 0) FROM idempotency_keys"
            ).fetchone()
            (twice,) = connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM payment_intents"
                " WHERE status = 'succeeded' GROUP BY idempotency_key HAVING count(*) > 1)"
            ).fetchone()
        return {
            "by_status": dict(by_status),
            "requests": requests,
            "keys_captured_more_than_once": twice,
        }

    def forget(self) -> None:
        """Deletes everything."""
        with self._use() as connection:
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608  a name from above

    @contextlib.contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection in a transaction, rolled back on an exception."""
        with self._lock, self._open() as connection:
            yield connection

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._path or ":memory:",
                timeout=_BUSY_SECONDS_MAX,
                isolation_level="IMMEDIATE",
                check_same_thread=False,
            )
            try:
                connection.executescript(_SETUP)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def _sweep(connection: sqlite3.Connection, now: int) -> None:
    for table, column, days in (
        ("idempotency_keys", "first_ms", KEY_HOURS_MAX / 24),
        ("payment_intents", "created_ms", INTENT_DAYS_MAX),
    ):
        connection.execute(
            f"DELETE FROM {table} WHERE {column} < ? AND sequence IN"  # noqa: S608  names from above
            f" (SELECT sequence FROM {table} ORDER BY sequence LIMIT ?)",
            (now - int(days * 86_400_000), SWEEP_COUNT_MAX),
        )


def _intent(connection: sqlite3.Connection, intent_id: str) -> PaymentIntent | None:
    row = connection.execute(
        "SELECT body FROM payment_intents WHERE id = ?", (intent_id,)
    ).fetchone()
    return json.loads(row[0]) if row else None
