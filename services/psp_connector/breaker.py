"""Stops charging while the PSP is down, and comes back gently.

Closed: up to `concurrency` calls at a time. Transient failures in a row may be the payments' own
fault, so after FAILURES_MAX of them the PSP itself is asked whether it answers; only when it does
not, the breaker opens. Open: nothing is charged, no transaction's attempts are used up, and the PSP
is asked at growing intervals. When it answers, one call at a time goes out, then two, four …; a
failure on the way asks again.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.psp_connector.backoff import Backoff

FAILURES_MAX = 5


class Breaker:
    """How many calls at the PSP may be under way now. For several threads."""

    def __init__(
        self, concurrency: int, backoff: Backoff, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._concurrency = concurrency
        self._backoff = backoff
        self._timer = timer
        self._lock = threading.Lock()
        self._allowed = concurrency
        self._failures = 0
        self._asking = False
        self._probes = 0
        self._probe_at = 0.0

    @property
    def allowed(self) -> int:
        """Calls that may be under way at a time; 0 while open."""
        return self._allowed

    def succeeded(self) -> None:
        """The PSP gave a real answer, a decline included."""
        with self._lock:
            self._answered()

    def _answered(self) -> None:
        self._failures = 0
        if self._allowed:
            self._probes = 0
            self._allowed = min(self._allowed * 2, self._concurrency)

    def failed(self) -> bool:
        """A call got no real answer; returns whether the caller has to `ask` now."""
        with self._lock:
            self._failures += 1
            recovering = self._allowed < self._concurrency
            suspect = recovering or self._failures >= FAILURES_MAX
            if not self._allowed or self._asking or not suspect:
                return False
            self._asking = True
            return True

    def ask(self, answers: Callable[[], bool]) -> bool:
        """Asks the PSP after failures; returns whether that opened the breaker."""
        answered = False
        try:
            answered = answers()
        finally:
            with self._lock:
                self._asking = False
                opens = not answered and self._allowed > 0
                if answered:
                    self._answered()
                elif opens:
                    self._allowed = 0
                    self._schedule_probe()
        return opens

    def probe(self, answers: Callable[[], bool]) -> bool:
        """Asks, if it is open and time to; returns whether that let calls through again."""
        with self._lock:
            if self._allowed or self._timer() < self._probe_at:
                return False
        answered = answers()
        with self._lock:
            if not answered:
                self._schedule_probe()
                return False
            self._allowed = 1
            self._failures = 0
            return True

    def _schedule_probe(self) -> None:
        self._probes += 1
        self._probe_at = self._timer() + self._backoff.delay_seconds(self._probes)
