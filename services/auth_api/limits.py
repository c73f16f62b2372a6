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
from collections import Counter
from typing import TYPE_CHECKING

from cachetools import TTLCache

from services.common.problems import Problem, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FREE_FAILURES_OF_A_NAME = 5
FREE_FAILURES_OF_AN_ADDRESS = 50
WAIT_SECONDS_MAX = 60
_FORGOTTEN_SECONDS = 900
_COUNTED_MAX = 20_000
# As long as a login waits for a core (services/auth_api/passwords.py).
_WAIT_SECONDS_MAX = 5.0


class LoginLimits:
    """Counts failed logins, and says when the next try is welcome."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._changed = threading.Condition()
        # (what is counted) -> (failures, time at which the next try is welcome)
        self._failures: TTLCache[tuple[str, ...], tuple[int, float]] = TTLCache(
            _COUNTED_MAX, _FORGOTTEN_SECONDS, timer=timer
        )
        self._under_way: Counter[tuple[str, ...]] = Counter()

    def attempt(self, username: str, address: str, verify: Callable[[], bool]) -> bool:
        """What `verify` says of a login, if a try is welcome now; counts it when it failed.

        Tries that could be one too many if those under way fail wait for the outcome of those.

        Raises:
            Problem: 429 with Retry-After when no try is welcome, 503 when too many wait.
        """
        keys = _keys(username, address)
        with self._changed:
            if not self._changed.wait_for(lambda: self._may_try(keys), _WAIT_SECONDS_MAX):
                raise Unavailable("Too many logins at the moment.")
            self._under_way.update(keys.keys())
        succeeded = None
        try:
            succeeded = verify()
        finally:
            with self._changed:
                self._under_way -= Counter(keys.keys())
                if succeeded:
                    self._failures.pop((username, address), None)
                elif succeeded is not None:
                    self._failed(keys)
                self._changed.notify_all()
        return succeeded

    def _may_try(self, keys: Mapping[tuple[str, ...], int]) -> bool:
        found = {key: self._failures.get(key, (0, 0.0)) for key in keys}
        wait_seconds = math.ceil(max(welcome for _, welcome in found.values()) - self._timer())
        if wait_seconds > 0:
            raise Problem(
                429,
                "Too many failed logins; wait before the next try.",
                headers={"Retry-After": str(wait_seconds)},
            )
        under_way = self._under_way
        return all(
            not under_way[key] or found[key][0] + under_way[key] <= free
            for key, free in keys.items()
        )

    def _failed(self, keys: Mapping[tuple[str, ...], int]) -> None:
        for key, free in keys.items():
            failures = self._failures.get(key, (0, 0.0))[0] + 1
            over = min(failures - free, 16)  # 2**16 s is past any bound
            wait_seconds = min(2.0 ** (over - 1), WAIT_SECONDS_MAX) if over > 0 else 0.0
            self._failures[key] = (failures, self._timer() + wait_seconds)


def _keys(username: str, address: str) -> dict[tuple[str, ...], int]:
    """What a login is counted as, and how many failures of each are free."""
    return {
        (username, address): FREE_FAILURES_OF_A_NAME,
        (address,): FREE_FAILURES_OF_AN_ADDRESS,
    }
