"""Writes results of attempts to Redis in batches.

One thread serves all charging threads: a round trip for each result would cost more than the rest
of the connector. A result that Redis rejects is retried, and counts as in flight for its merchant
until it is saved or given up.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from opentelemetry.trace import INVALID_SPAN, Span

from services.common import tracing
from services.psp_connector.queue import Queue
from services.psp_connector.records import Result, Work
from services.psp_connector.slots import Slots

_AT_ONCE_MAX = 64
# Retried for at least 30 s; then the entry is reclaimed and charged again under the same
# idempotency key.
_TRIES_MAX = 60
_PAUSE_SECONDS = 0.5
# Of all unsaved results together: new ones need this thread, too.
_RETRIES_PER_SECOND_MAX = 500

_log = structlog.get_logger()


@dataclass(eq=False)
class Attempt:
    """A completed PSP call, and how often its result could not be saved."""

    work: Work
    result: Result
    psp_ms: float
    span: Span = INVALID_SPAN
    tries: int = 0
    next_try_at: float = 0.0


class Saver:
    """Saves results in a thread; calls `saved` with them, each with whether it had an effect."""

    def __init__(
        self, queue_: Queue, slots: Slots, saved: Callable[[list[tuple[Attempt, bool]]], None]
    ) -> None:
        self._queue = queue_
        self._slots = slots
        self._saved = saved
        self._new: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._unsaved: list[Attempt] = []

    def start(self) -> None:
        threading.Thread(target=self._run, name="save", daemon=True).start()

    def put(self, attempt: Attempt) -> None:
        self._new.put(attempt)

    def stop(self) -> None:
        """Ends the thread; discards unsaved results."""
        self._new.put(None)

    def _run(self) -> None:
        while self._gather():
            now = time.monotonic()
            due = [attempt for attempt in self._unsaved if attempt.next_try_at <= now]
            due.sort(key=lambda attempt: attempt.tries > 0)  # new ones first
            if due:
                self._save(due[:_AT_ONCE_MAX])

    def _gather(self) -> bool:
        """Waits for a new result or a due retry; False after `stop`."""
        wait_seconds = None
        if self._unsaved:
            next_try_at = min(attempt.next_try_at for attempt in self._unsaved)
            wait_seconds = max(next_try_at - time.monotonic(), 0.0)
        with contextlib.suppress(queue.Empty):
            for _more in range(_AT_ONCE_MAX):
                attempt = self._new.get(timeout=wait_seconds)
                if attempt is None:
                    return False
                self._unsaved.append(attempt)
                wait_seconds = 0.0
        return True

    def _save(self, attempts: list[Attempt]) -> None:
        outcomes: Sequence[bool | Exception]
        try:
            outcomes = self._queue.save([(attempt.work, attempt.result) for attempt in attempts])
        except Exception as error:  # noqa: BLE001  the connector stalls without this thread
            outcomes = [error] * len(attempts)
        saved: list[tuple[Attempt, bool]] = []
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            if isinstance(outcome, bool):
                self._unsaved.remove(attempt)
                saved.append((attempt, outcome))
            else:
                self._retry_later(attempt, outcome)
        try:
            self._saved(saved)
        except Exception:  # noqa: BLE001  as above
            _log.exception("could not report results")
        self._slots.release([attempt.work for attempt, _ in saved])

    def _retry_later(self, attempt: Attempt, error: Exception) -> None:
        attempt.tries += 1
        pause_seconds = max(_PAUSE_SECONDS, len(self._unsaved) / _RETRIES_PER_SECOND_MAX)
        attempt.next_try_at = time.monotonic() + pause_seconds
        self._slots.park(attempt.work)
        log = _log.bind(**attempt.work.ids)
        if attempt.tries == 1:
            reason = f"{type(error).__name__}: {error}"
            log.warning("could not save result, retrying", reason=reason)
        if attempt.tries == _TRIES_MAX:
            log.error("could not save result, leaving the transaction to be reclaimed")
            self._unsaved.remove(attempt)
            for span in (attempt.span, attempt.work.span):
                tracing.end(span, "could not save result")
            self._slots.release([attempt.work])
