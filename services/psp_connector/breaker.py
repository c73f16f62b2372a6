"""A circuit breaker: stops charging while the PSP is down, and recovers gradually.

Closed: up to `concurrency` calls at once. Transient failures may be due to the payments themselves,
so after FAILURES_MAX consecutive ones, and after a payment's last attempt, the PSP is probed, and
only two failed probes in a row open the breaker.
Open: nothing is charged, so no attempts are used up, and the PSP is probed at growing intervals.
After a successful probe it allows one call at once, then with each response two, four …; a failure
probes again, and so does a time without a response, because the calls of one merchant may hang.
"""

import threading
import time
from collections.abc import Callable

from services.psp_connector.backoff import Backoff

FAILURES_MAX = 5
_RECOVERY_PROBE_SECONDS = 0.25


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
                self._probe_at = self._timer() + _RECOVERY_PROBE_SECONDS

    def failed(self, *, is_last: bool = False) -> bool:
        """Records a transient failure; returns whether the caller must `check` now.

        After a payment's last attempt it must, unless the breaker is open: with few payments or
        several connectors, an outage may use up all attempts before FAILURES_MAX.
        """
        with self._lock:
            self._failures += 1
            recovering = self.calls_max < self._concurrency
            suspect = recovering or self._failures >= FAILURES_MAX
            is_asked = is_last or (suspect and not self._checking)
            if not self.calls_max or not is_asked:
                return False
            self._checking = True
            return True

    def is_due(self) -> bool:
        """Whether it is open or recovering, and the caller must `check` the PSP now."""
        with self._lock:
            is_closed = self.calls_max == self._concurrency
            if is_closed or self._checking or self._timer() < self._probe_at:
                return False
            self._checking = True
            return True

    def check(self, is_available: Callable[[], bool]) -> str:
        """Probes the PSP; returns `opened` or `closed` if that has changed the breaker, else ''."""
        is_up, began_open, change = False, not self.calls_max, ""
        try:
            # One failure may be chance, and stops all merchants while calls in flight hang.
            is_up = is_available() or (not began_open and is_available())
        finally:
            with self._lock:
                self._checking = False
                was_open = not self.calls_max
                if is_up and was_open:
                    self.calls_max, self._failures, change = 1, 0, "closed"
                    self._probe_at = self._timer() + _RECOVERY_PROBE_SECONDS
                elif is_up:
                    self.succeeded()
                elif began_open or not was_open:  # else another check has just opened it
                    change = "" if was_open else "opened"
                    self.calls_max = 0
                    self._probes += 1
                    delay_seconds = self._backoff.delay_seconds(self._probes)
                    self._probe_at = self._timer() + delay_seconds
        return change
