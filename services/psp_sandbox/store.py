"""What the sandbox remembers, in SQLite: payments and idempotency keys.

    payment_intents    one row for each payment, in the order they came; kept 30 days
    idempotency_keys   one row for each key: what it was first used for, how often it came, the
                       payment that answers it; forgotten after 24 hours, as at Stripe

A payment and the binding of its key to it are one transaction, so there is never the one without
the other, whenever the process dies. A key that is bound is never bound again: of two processes
(a worker whose master was killed, and its successor) that charge one key, the second gets the
payment of the first.
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
# Each request adds at most one row to a table, and removes up to so many that are too old; so a
# table shrinks to what it may hold, and no request pays for the rest.
SWEEP_COUNT_MAX = 2
# Only another process that is on its way out can hold the file, and not for long.
_BUSY_SECONDS_MAX = 5

_SETUP = """
PRAGMA journal_mode = WAL;
-- A killed process loses nothing that SQLite gave to the system; only a power cut would, and
-- against that a sandbox need not pay for waiting on the disk.
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
    """What is known of an idempotency key; `intent` once a payment answers it."""

    fingerprint: str
    intent: PaymentIntent | None


@dataclass(frozen=True, slots=True)
class Page:
    """Payments, newest first, each with its idempotency key."""

    rows: list[tuple[str, PaymentIntent]]
    next_cursor: int | None


class Store:
    """One connection for all threads, used by one at a time: SQLite writes one at a time anyway.

    It is opened by the first use, not here: SQLite connections must not be taken through a fork.
    """

    def __init__(self, path: Path | None, clock: Clock = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def check(self) -> None:
        """Raises `sqlite3.Error` when the database does not answer."""
        with self._use() as connection:
            connection.execute("SELECT 1 FROM payment_intents LIMIT 1").fetchone()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def note(self, key: str, fingerprint: str) -> KnownKey:
        """Counts a request for a payment, and says what is known of its key."""
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
        """Counts a fault that a key is about to get, and says how many that makes."""
        with self._use() as connection:
            row = connection.execute(
                "UPDATE idempotency_keys SET faults = faults + 1 WHERE key = ? RETURNING faults",
                (key,),
            ).fetchone()
        return int(row[0]) if row else 1

    def add(self, intent: PaymentIntent, key: str) -> PaymentIntent:
        """Keeps a payment, and makes it the answer to its key.

        Returns the payment that answers the key: another process' if that was first, and then
        nothing is kept.
        """
        row = (intent["id"], now_ms(self._clock), key, intent["status"], json.dumps(intent))
        with self._use() as connection:
            # First, because writing opens the transaction, and what is read is then the last word.
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
        """Where a payment is in the order, as a cursor for `page`."""
        with self._use() as connection:
            row = connection.execute(
                "SELECT sequence FROM payment_intents WHERE id = ?", (intent_id,)
            ).fetchone()
        return int(row[0]) if row else None

    def page(self, limit: int, *, before: int | None = None, key: str | None = None) -> Page:
        """The newest `limit` payments, of those before a cursor and of one key if given."""
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
        """For each key how many requests came and how many times money was captured."""
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
        """What was captured, by currency."""
        with self._use() as connection:
            rows = connection.execute(
                "SELECT json_extract(body, '$.currency'), sum(json_extract(body, '$.amount'))"
                " FROM payment_intents WHERE status = 'succeeded' GROUP BY 1 ORDER BY 1"
            )
            return dict(rows.fetchall())

    def counts(self) -> dict[str, Any]:
        """How many payments of each status, how many requests, and which keys paid twice."""
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
        """Forgets everything."""
        with self._use() as connection:
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608  a name from above

    @contextlib.contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """The connection; what is written is one transaction, none of it kept after an error."""
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
