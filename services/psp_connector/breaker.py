"""A circuit breaker: stops charging while the PSP is down, and recovers gradually.

Closed: up to `concurrency` concurrent calls. Consecutive transient failures may be caused by the
payments themselves, so after FAILURES_MAX the PSP is probed, and the breaker opens only if the
probe fails. Open: nothing is charged, so no attempts are used up, and the PSP is probed at growing
intervals. After a successful probe it allows one concurrent call, then two, four …; a failure
meanwhile probes again.
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
    """Limits concurrent PSP calls. Thread-safe."""

    def __init__(
        self, concurrency: int, backoff: Backoff, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._concurrency = concurrency
        self._backoff = backoff
        self._timer = timer
        self._lock = threading.RLock()
        self._allowed = concurrency
        self._failures = 0
        self._checking = False
        self._probes = 0
        self._probe_at = 0.0

    @property
    def allowed(self) -> int:
        """Allowed concurrent calls; 0 while open."""
        return self._allowed

    def succeeded(self) -> None:
        """Records a definite PSP response, such as a decline."""
        with self._lock:
            self._failures = 0
            if self._allowed:
                self._probes = 0
                self._allowed = min(self._allowed * 2, self._concurrency)

    def failed(self) -> bool:
        """Records a transient failure; returns whether the caller must `check` now."""
        with self._lock:
            self._failures += 1
            recovering = self._allowed < self._concurrency
            suspect = recovering or self._failures >= FAILURES_MAX
            if not self._allowed or self._checking or not suspect:
                return False
            self._checking = True
            return True

    def check(self, is_available: Callable[[], bool]) -> bool:
        """Checks the PSP after failures; returns whether that opened the breaker."""
        is_up = False
        try:
            is_up = is_available()
        finally:
            with self._lock:
                self._checking = False
                opens = not is_up and self._allowed > 0
                if is_up:
                    self.succeeded()
                elif opens:
                    self._allowed = 0
                    self._schedule_probe()
        return opens

    def probe(self, is_available: Callable[[], bool]) -> bool:
        """Probes the PSP if open and due; returns whether that closed the breaker."""
        with self._lock:
            if self._allowed or self._timer() < self._probe_at:
                return False
        is_up = is_available()
        with self._lock:
            if not is_up:
                self._schedule_probe()
                return False
            self._allowed = 1
            self._failures = 0
            return True

    def _schedule_probe(self) -> None:
        self._probes += 1
        self._probe_at = self._timer() + self._backoff.delay_seconds(self._probes)
