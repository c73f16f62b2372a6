"""Stops asking a PSP that is down, and comes back gently.

Closed: up to `concurrency` calls at a time. After FAILURES_MAX transient failures in a row it
opens: nothing is charged, no transaction's attempts are used up, and the PSP is asked whether it
answers, at growing intervals. When it does, one call at a time goes out, then two, four …
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
        self._probes = 0
        self._probe_at = 0.0

    @property
    def allowed(self) -> int:
        """Calls that may be under way at a time; 0 while open."""
        return self._allowed

    def succeeded(self) -> None:
        """The PSP gave a real answer, a decline included."""
        with self._lock:
            self._failures = 0
            if self._allowed:
                self._allowed = min(self._allowed * 2, self._concurrency)

    def failed(self) -> bool:
        """The PSP did not; returns whether this opened the breaker."""
        with self._lock:
            self._failures += 1
            recovering = 0 < self._allowed < self._concurrency
            if not self._allowed or not (recovering or self._failures >= FAILURES_MAX):
                return False
            self._allowed = 0
            self._schedule_probe()
            return True

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

    def closed(self) -> bool:
        """Whether all is as usual."""
        with self._lock:
            if self._allowed == self._concurrency:
                self._probes = 0
            return self._allowed == self._concurrency

    def _schedule_probe(self) -> None:
        self._probes += 1
        self._probe_at = self._timer() + self._backoff.delay_seconds(self._probes)
