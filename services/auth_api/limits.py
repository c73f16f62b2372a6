"""Rate-limits password guessing without locking the merchant out.

Failures are counted per user name and address, and per address. After a few free failures, each one
doubles the wait, up to a minute. Guesses from another address do not count against the merchant,
and cached logins are not limited. Counts are in memory, per worker process: N workers allow N times
the free failures, which is acceptable.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network

from cachetools import TTLCache

from services.common.problems import Problem, Unavailable

FREE_FAILURES_OF_A_NAME = 5
FREE_FAILURES_OF_AN_ADDRESS = 50
WAIT_SECONDS_MAX = 60
_FORGOTTEN_SECONDS = 900
_COUNTED_MAX = 20_000
# Same as the wait for a core in services/auth_api/passwords.py.
_WAIT_SECONDS_MAX = 5.0


class LoginLimits:
    """Counts failed logins and enforces the wait after them."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._changed = threading.Condition()
        # key -> (failures, time from which the next attempt is allowed)
        self._failures: TTLCache[tuple[str, ...], tuple[int, float]] = TTLCache(
            _COUNTED_MAX, _FORGOTTEN_SECONDS, timer=timer
        )
        self._in_flight: Counter[tuple[str, ...]] = Counter()

    def attempt(self, username: str, address: str, verify: Callable[[], bool]) -> bool:
        """Calls `verify` if an attempt is allowed now, and counts a failure.

        An attempt that would exceed the limit if those in flight failed waits for them.

        Raises:
            Problem: 429 with Retry-After if not allowed yet, 503 if it waited too long.
        """
        client = _client(address)
        keys = _keys(username, client)
        with self._changed:
            if not self._changed.wait_for(lambda: self._may_try(keys), _WAIT_SECONDS_MAX):
                raise Unavailable("Too many logins at the moment.")
            self._in_flight.update(keys.keys())
        succeeded = None
        try:
            succeeded = verify()
        finally:
            with self._changed:
                self._in_flight -= Counter(keys.keys())
                if succeeded:
                    self._failures.pop((username, client), None)
                elif succeeded is not None:
                    self._failed(keys)
                self._changed.notify_all()
        return succeeded

    def _may_try(self, keys: Mapping[tuple[str, ...], int]) -> bool:
        found = {key: self._failures.get(key, (0, 0.0)) for key in keys}
        wait_seconds = math.ceil(
            max(allowed_at for _, allowed_at in found.values()) - self._timer()
        )
        if wait_seconds > 0:
            raise Problem(
                429,
                "Too many failed logins; wait before the next attempt.",
                headers={"Retry-After": str(wait_seconds)},
            )
        in_flight = self._in_flight
        return all(
            not in_flight[key] or found[key][0] + in_flight[key] <= free
            for key, free in keys.items()
        )

    def _failed(self, keys: Mapping[tuple[str, ...], int]) -> None:
        for key, free in keys.items():
            failures = self._failures.get(key, (0, 0.0))[0] + 1
            over = min(failures - free, 16)  # 2**16 s is past any bound
            wait_seconds = min(2.0 ** (over - 1), WAIT_SECONDS_MAX) if over > 0 else 0.0
            self._failures[key] = (failures, self._timer() + wait_seconds)


def _client(address: str) -> str:
    """The addresses one machine can choose from: all of the loopback, or an IPv6 /64."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return "loopback"
    return str(ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)


def _keys(username: str, address: str) -> dict[tuple[str, ...], int]:
    """Maps the counters of a login to their free failures."""
    return {
        (username, address): FREE_FAILURES_OF_A_NAME,
        (address,): FREE_FAILURES_OF_AN_ADDRESS,
    }
