"""Slows down whoever guesses passwords, without locking the merchant out.

Failures are counted for a user name from one address, and for an address over all names. Past a
few free ones each further failure doubles the wait, up to a minute. Somebody else's guesses from
another address do not count against the merchant, and a login that is remembered as verified is
not asked about at all. Counted in memory, by each worker process for itself: a guesser who is
spread over N workers has N times the free tries, which changes nothing that matters.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from cachetools import TTLCache

from services.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

FREE_FAILURES_OF_A_NAME = 5
FREE_FAILURES_OF_AN_ADDRESS = 50
WAIT_SECONDS_MAX = 60
_FORGOTTEN_SECONDS = 900
_COUNTED_MAX = 20_000


class LoginLimits:
    """Counts failed logins, and says when the next try is welcome."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._lock = threading.Lock()
        # (what is counted) -> (failures, time at which the next try is welcome)
        self._failures: TTLCache[tuple[str, ...], tuple[int, float]] = TTLCache(
            _COUNTED_MAX, _FORGOTTEN_SECONDS, timer=timer
        )

    def check(self, username: str, address: str) -> None:
        """Returns if a try is welcome now.

        Raises:
            Problem: 429 with Retry-After when it is not.
        """
        with self._lock:
            welcome = max(
                self._failures.get(key, (0, 0.0))[1] for key, _ in _keys(username, address)
            )
        wait_seconds = math.ceil(welcome - self._timer())
        if wait_seconds > 0:
            raise Problem(
                429,
                "Too many failed logins; wait before the next try.",
                headers={"Retry-After": str(wait_seconds)},
            )

    def failed(self, username: str, address: str) -> None:
        """Counts a failed login."""
        with self._lock:
            for key, free in _keys(username, address):
                failures = self._failures.get(key, (0, 0.0))[0] + 1
                over = min(failures - free, 16)  # 2**16 s is past any bound
                wait_seconds = min(2.0 ** (over - 1), WAIT_SECONDS_MAX) if over > 0 else 0.0
                self._failures[key] = (failures, self._timer() + wait_seconds)

    def succeeded(self, username: str, address: str) -> None:
        """Forgets the failures of this name from this address."""
        with self._lock:
            self._failures.pop((username, address), None)


def _keys(username: str, address: str) -> list[tuple[tuple[str, ...], int]]:
    return [
        ((username, address), FREE_FAILURES_OF_A_NAME),
        ((address,), FREE_FAILURES_OF_AN_ADDRESS),
    ]
