"""Rate-limits password guessing; a guesser delays only merchants at its own address.

A failure fills two leaky buckets: of the user name at its address, and of the address. A full
bucket refuses the next attempt. A repeated wrong password is not a new guess: it fails without a
hash and fills a bucket of its own, so a client with an old password delays no other client. The
bucket of an address does not delay names that logged in there recently. Remembered logins are
limited, too: their status would reveal the password to a guesser. Buckets are in memory, per worker
process: N workers allow N times the guesses.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from cachetools import LRUCache, TTLCache

from services.auth_api.addresses import address_group
from services.common.problems import Problem, Unavailable


class Limit(NamedTuple):
    """A bucket holds `failures`, and each drains in `seconds`."""

    failures: int
    seconds: int


# At an address, 66 guesses of one name in the first hour, and 1,251 of all names: 50 merchants
# behind it may fail at once, and each further one delays other logins by only 3 s.
OF_A_NAME = Limit(5, seconds=60)
OF_AN_ADDRESS = Limit(50, seconds=3)
# Names that failed recently leave half of their address's bucket to others.
OF_AN_ADDRESS_FOR_FAILING_NAMES = Limit(25, seconds=3)
# Longer than any bucket takes to drain: else failing clients that wait for their address would
# count as new.
_RECENT_SECONDS = 3600
# A working day: a merchant's first login of a day may be delayed, later ones are not.
_TRUSTED_SECONDS = 12 * 3600
_BUCKETS_MAX = 20_000
# Same as the wait for a core in services/auth_api/passwords.py.
_WAIT_SECONDS_MAX = 5.0

# The key of a bucket: (address,), (address, name) or (address, name, guess).
_Bucket: TypeAlias = tuple[str | bytes, ...]


class LoginLimits:
    """Counts failed logins and enforces the wait after them."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._changed = threading.Condition()
        self._empty_at: LRUCache[_Bucket, float] = LRUCache(_BUCKETS_MAX)
        self._trusted: TTLCache[_Bucket, bool] = TTLCache(
            _BUCKETS_MAX, _TRUSTED_SECONDS, timer=timer
        )
        self._in_flight: Counter[_Bucket] = Counter()

    def is_trusted(self, username: str, address: str) -> bool:
        """Whether `attempt` allows any guess: the name logged in there and has not failed since."""
        name = (address_group(address), username)
        with self._changed:
            if name not in self._trusted or self._in_flight[name]:
                return False
            return not self._failed_recently(name)

    def attempt(
        self, username: str, address: str, guess: bytes, verify: Callable[[], bool]
    ) -> bool:
        """Calls `verify` if an attempt is allowed now, and counts a failure; else Problem 429.

        An attempt that would exceed the limit if those in flight failed waits for them, but not for
        long: Problem 503. A `guess` (a digest of name and password) that failed recently fails
        without `verify`.
        """
        login = (address_group(address), username, guess)
        buckets = Counter((login, login[:2], login[:1]))
        with self._changed:
            if not self._changed.wait_for(lambda: self._may_try(login), _WAIT_SECONDS_MAX):
                raise Unavailable("Too many logins at the moment.")
            if self._failed_recently(login):
                self._failed(login)
                return False
            self._in_flight += buckets
        succeeded = None
        try:
            succeeded = verify()
        finally:
            with self._changed:
                self._in_flight -= buckets
                if succeeded:
                    # Only once: else each login of the merchant would give a guesser new attempts.
                    if login[:2] not in self._trusted:
                        self._empty_at.pop(login[:2], None)
                    self._trusted[login[:2]] = True
                elif succeeded is not None:
                    self._failed(login)
                self._changed.notify_all()
        return succeeded

    def _may_try(self, login: _Bucket) -> bool:
        limits, now = self._limits(login), self._timer()
        room_seconds = {
            bucket: limit.failures * limit.seconds - max(self._empty_at.get(bucket, now) - now, 0)
            for bucket, limit in limits.items()
        }
        if (least := min(room_seconds.values())) < 0:
            raise Problem(
                429,
                "Too many failed logins; wait before the next attempt.",
                headers={"Retry-After": str(math.ceil(-least))},
            )
        return all(
            self._in_flight[bucket] * limit.seconds <= room_seconds[bucket]
            for bucket, limit in limits.items()
        )

    def _failed(self, login: _Bucket) -> None:
        now = self._timer()
        for bucket, limit in self._limits(login).items():
            self._empty_at[bucket] = max(self._empty_at.get(bucket, now), now) + limit.seconds

    def _limits(self, login: _Bucket) -> dict[_Bucket, Limit]:
        if self._failed_recently(login):
            return {login: OF_A_NAME}
        name, address = login[:2], login[:1]
        limits = {login: OF_A_NAME, name: OF_A_NAME}
        if self._failed_recently(name):
            return {**limits, address: OF_AN_ADDRESS_FOR_FAILING_NAMES}
        return limits if name in self._trusted else {**limits, address: OF_AN_ADDRESS}

    def _failed_recently(self, bucket: _Bucket) -> bool:
        return self._timer() < self._empty_at.get(bucket, -math.inf) + _RECENT_SECONDS
