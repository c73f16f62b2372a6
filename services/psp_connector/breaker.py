"""Stops asking a PSP that is down, and comes back gently.

Closed: up to `concurrency` calls at a time. After FAILURES_MAX transient failures in a row it
opens: nothing is charged, no transaction's attempts are used up, and the PSP is asked whether it
answers, at growing intervals. When it does, one call at a time goes out, then two, four …; the
first of them to fail opens it again, for a short while.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.psp_connector.backoff import Backoff

FAILURES_MAX = 5
# When the PSP answers and a charge fails all the same, that may be the charge's own fault: a
# hundred such in a row must not hold the others up for half an hour, at the longest wait each.
# Yet it may be that charges alone are down; so not at once, or they would use up their attempts.
RETURN_SECONDS_MAX = 3.0


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
                self._probes = 0
                self._allowed = min(self._allowed * 2, self._concurrency)

    def failed(self) -> bool:
        """The PSP did not; returns whether this opened the breaker."""
        with self._lock:
            self._failures += 1
            recovering = 0 < self._allowed < self._concurrency
            if not self._allowed or not (recovering or self._failures >= FAILURES_MAX):
                return False
            self._allowed = 0
            self._schedule_probe(RETURN_SECONDS_MAX)
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

    def _schedule_probe(self, seconds_max: float = math.inf) -> None:
        self._probes += 1
        wait_seconds = min(self._backoff.delay_seconds(self._probes), seconds_max)
        self._probe_at = self._timer() + wait_seconds
