"""Writes to Redis what came of attempts: as many at a time as have come meanwhile.

One thread does it for all that charge: a round trip for each of them would cost more than all else
the connector does. What Redis does not take is kept and tried again; until it is saved, or given
up, it counts as in flight, so that no more is kept than the connector may charge at a time.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.psp_connector.queue import Queue
    from services.psp_connector.records import Work
    from services.psp_connector.results import Result

_AT_ONCE_MAX = 64
# Tried for 30 s and more; then it stays with the connector's lost entries, and is charged again
# under the same idempotency key.
_TRIES_MAX = 60
_PAUSE_SECONDS = 0.5

_log = structlog.get_logger()


@dataclass
class Attempt:
    """A call at the PSP that is over, and how often it was tried to save what came of it."""

    work: Work
    result: Result
    psp_ms: float
    tries: int = 0
    next_try_at: float = 0.0


class Owner(Protocol):
    """Who is told what became of an attempt."""

    def saved(self, attempts: list[tuple[Attempt, bool]]) -> None:
        """These are in Redis; with each, whether it had an effect."""

    def lost(self, attempt: Attempt) -> None:
        """This one Redis does not take."""


class Saver:
    """A thread that saves."""

    def __init__(
        self,
        queue_: Queue,
        owner: Owner,
        *,
        pause_seconds: float = _PAUSE_SECONDS,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue_
        self._owner = owner
        self._pause_seconds = pause_seconds
        self._timer = timer
        self._new: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._kept: list[Attempt] = []

    def start(self) -> None:
        """Begins; the thread ends with the process, or by `stop`."""
        threading.Thread(target=self._run, name="save", daemon=True).start()

    def put(self, attempt: Attempt) -> None:
        """From any thread."""
        self._new.put(attempt)

    def stop(self) -> None:
        """Ends the thread; what is not saved by then stays unsaved."""
        self._new.put(None)

    def _run(self) -> None:
        while self._gather():
            now = self._timer()
            due = [attempt for attempt in self._kept if attempt.next_try_at <= now]
            if due:
                self._save(due[:_AT_ONCE_MAX])

    def _gather(self) -> bool:
        """Waits for a new one or for one that is due again; False when it is to end."""
        wait_seconds = None
        if self._kept:
            next_try_at = min(attempt.next_try_at for attempt in self._kept)
            wait_seconds = max(next_try_at - self._timer(), 0.0)
        with contextlib.suppress(queue.Empty):
            for _more in range(_AT_ONCE_MAX):
                attempt = self._new.get(timeout=wait_seconds)
                if attempt is None:
                    return False
                self._kept.append(attempt)
                wait_seconds = 0.0
        return True

    def _save(self, attempts: list[Attempt]) -> None:
        outcomes: Sequence[bool | Exception]
        try:
            outcomes = self._queue.save([(attempt.work, attempt.result) for attempt in attempts])
        except Exception as error:  # noqa: BLE001  whatever it was: without this thread all stands still
            outcomes = [error] * len(attempts)
        saved: list[tuple[Attempt, bool]] = []
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            if isinstance(outcome, bool):
                self._kept.remove(attempt)
                saved.append((attempt, outcome))
            else:
                self._try_later(attempt, outcome)
        self._owner.saved(saved)

    def _try_later(self, attempt: Attempt, error: Exception) -> None:
        attempt.tries += 1
        attempt.next_try_at = self._timer() + self._pause_seconds
        charge = attempt.work.charge
        log = _log.bind(request_id=charge.request_id, transaction_id=charge.transaction_id)
        log.warning("outcome not saved yet", reason=f"{type(error).__name__}: {error}")
        if attempt.tries == _TRIES_MAX:
            log.error("outcome not saved, the transaction will be tried again")
            self._kept.remove(attempt)
            self._owner.lost(attempt)
