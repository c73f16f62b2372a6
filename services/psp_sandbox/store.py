"""The sandbox's SQLite database: one row per idempotency key, with its payment once there is one.

A key is in force for 24 hours, as at Stripe; its row is kept for 30 days. A key has one payment: if
two processes (a worker whose master was killed, and its successor) charge one key, the second gets
the payment of the first.
"""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from services.common.clock import Clock, now_ms
from services.psp_sandbox.payments import PaymentIntent

KEY_HOURS_MAX = 24
INTENT_DAYS_MAX = 30
# Expired rows deleted per request. A request adds at most one row, so the table shrinks to its
# retention, at a bounded cost for each request.
SWEEP_COUNT_MAX = 2
# Only a process that is exiting can hold the lock, briefly.
_BUSY_SECONDS_MAX = 5

_SETUP = """
PRAGMA journal_mode = WAL;
-- A killed process loses nothing that was written to the OS; a sandbox need not survive a power
-- cut.
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS payments (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    in_force INTEGER DEFAULT 1, -- NULL after 24 hours: then the key may be used again
    first_ms INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 1,
    faults INTEGER NOT NULL DEFAULT 0,
    status TEXT,
    intent TEXT,
    UNIQUE (key, in_force)
);
"""


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
        with self._use() as connection:
            connection.execute("SELECT 1 FROM payments LIMIT 1").fetchone()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def note(self, key: str, fingerprint: str) -> tuple[str, PaymentIntent | None]:
        """Counts a payment request; returns the key's fingerprint, and its payment if any."""
        now = now_ms(self._clock)
        with self._use() as connection:
            connection.execute(
                "DELETE FROM payments WHERE first_ms < ? AND sequence IN"
                " (SELECT sequence FROM payments ORDER BY sequence LIMIT ?)",
                (now - INTENT_DAYS_MAX * 86_400_000, SWEEP_COUNT_MAX),
            )
            connection.execute(
                "UPDATE payments SET in_force = NULL WHERE key = ? AND first_ms < ?",
                (key, now - KEY_HOURS_MAX * 3_600_000),
            )
            known, intent = connection.execute(
                "INSERT INTO payments (key, first_ms, fingerprint) VALUES (?, ?, ?)"
                " ON CONFLICT (key, in_force) DO UPDATE SET requests = requests + 1"
                " RETURNING fingerprint, intent",
                (key, now, fingerprint),
            ).fetchone()
        return known, json.loads(intent) if intent else None

    def note_fault(self, key: str) -> int:
        with self._use() as connection:
            row = connection.execute(
                "UPDATE payments SET faults = faults + 1 WHERE key = ? AND in_force"
                " RETURNING faults",
                (key,),
            ).fetchone()
        return int(row[0]) if row else 1

    def add(self, intent: PaymentIntent, key: str, fingerprint: str) -> PaymentIntent:
        """Stores the payment of a key, unless another process was first; returns the one stored."""
        with self._use() as connection:
            (stored,) = connection.execute(
                # The key may have expired since `note`.
                "INSERT INTO payments (key, first_ms, fingerprint, status, intent)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (key, in_force) DO UPDATE SET"
                " status = coalesce(status, excluded.status),"
                " intent = coalesce(intent, excluded.intent) RETURNING intent",
                (key, now_ms(self._clock), fingerprint, intent["status"], json.dumps(intent)),
            ).fetchone()
        payment: PaymentIntent = json.loads(stored)
        return payment

    def newest(self, count_max: int) -> list[tuple[str, int, PaymentIntent]]:
        """The newest payments, newest first, each with its key and number of requests."""
        with self._use() as connection:
            rows = connection.execute(
                "SELECT key, requests, intent FROM payments"
                " WHERE intent IS NOT NULL ORDER BY sequence DESC LIMIT ?",
                (count_max,),
            ).fetchall()
        return [(key, requests, json.loads(intent)) for key, requests, intent in rows]

    def summary(self) -> dict[str, int]:
        """Counts of payments and requests, and of keys captured more than once."""
        query = (
            "SELECT count(status), coalesce(sum(status = 'succeeded'), 0),"
            " coalesce(sum(status != 'succeeded'), 0), coalesce(sum(requests), 0),"
            " (SELECT count(*) FROM (SELECT 1 FROM payments WHERE status = 'succeeded'"
            "  GROUP BY key HAVING count(*) > 1)) FROM payments"
        )
        names = ("intents", "captured", "declined", "requests", "keys_captured_more_than_once")
        with self._use() as connection:
            return dict(zip(names, connection.execute(query).fetchone(), strict=True))

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
