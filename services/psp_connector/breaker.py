"""A circuit breaker: stops charging while the PSP is down, and recovers gradually.

Closed: up to `concurrency` calls at once. Consecutive transient failures may be due to the payments
themselves, so after FAILURES_MAX the PSP is probed, and only a failed probe opens the breaker.
Open: nothing is charged, so no attempts are used up, and the PSP is probed at growing intervals.
After a successful probe it allows one call at once, then two, four …; a failure probes again.
"""

import threading
import time
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
        self.calls_max = concurrency
        """Concurrent calls that may be made now; 0 while open."""
        self._failures = 0
        self._checking = False
        self._probes = 0
        self._probe_at = 0.0

    def succeeded(self) -> None:
        """Records a definite PSP response, such as a decline."""
        with self._lock:
            self._failures = 0
            if self.calls_max:
                self._probes = 0
                self.calls_max = min(self.calls_max * 2, self._concurrency)

    def failed(self) -> bool:
        """Records a transient failure; returns whether the caller must `check` now."""
        with self._lock:
            self._failures += 1
            recovering = self.calls_max < self._concurrency
            suspect = recovering or self._failures >= FAILURES_MAX
            if not self.calls_max or self._checking or not suspect:
                return False
            self._checking = True
            return True

    def is_due(self) -> bool:
        """Whether it is open, and the caller must `check` the PSP now."""
        with self._lock:
            if self.calls_max or self._checking or self._timer() < self._probe_at:
                return False
            self._checking = True
            return True

    def check(self, is_available: Callable[[], bool]) -> bool:
        """Probes the PSP; returns whether that opened or closed the breaker."""
        is_up = False
        try:
            is_up = is_available()
        finally:
            with self._lock:
                self._checking = False
                was_open = not self.calls_max
                if not is_up:
                    self.calls_max = 0
                    self._probes += 1
                    delay_seconds = self._backoff.delay_seconds(self._probes)
                    self._probe_at = self._timer() + delay_seconds
                elif was_open:
                    self.calls_max, self._failures = 1, 0
                else:
                    self.succeeded()
        return is_up == was_open
