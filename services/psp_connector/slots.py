"""Slots for concurrent PSP calls, shared by partitions and their merchants.

A busy merchant gets most slots, but never all: the next merchant finds one free however long calls
take, in whatever partition. A busy partition gets the slots that no other one can use; above its
even share, only merchants with no call in flight get one, as long as they are few.
"""

import contextlib
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from services.psp_connector.records import Work

# The last free slot is reserved for a merchant with none in flight; each further free slot allows a
# merchant three more (dynamic thresholds, Choudhury and Hahne, 1998). Of 12 slots one merchant gets
# at most 9, two get 5 each.
_PER_FREE_SLOT = 3
# Below half capacity, wait briefly so that one read fills several slots: reading one by one would
# cost a fast PSP's connector more than the charges.
_GATHER_SECONDS = 0.002
# How long a partition that got too few slots keeps its claim to an even share. It asks again sooner
# unless its Redis is unavailable. If a first call waits longer, the others leave a slot to it.
_CLAIM_SECONDS = 0.1
# If more partitions than this are busy, they take turns: single calls would cost a round trip to
# Redis each.
_CONTENDERS_MAX = 4


class _Held:
    """The slots of one partition."""

    def __init__(self) -> None:
        self.merchants: dict[str, str] = {}
        """Merchants of the entries in flight, by entry."""
        self.parked: set[str] = set()
        self.reserved: Counter[str] = Counter()
        self.claims_until = 0.0
        self.idle_since = math.inf
        """Since when a merchant with none in flight waits, or since the last grant."""

    @property
    def count(self) -> int:
        return len(self.merchants) + self.reserved.total()

    @property
    def serves(self) -> set[str]:
        """Merchants with calls in flight."""
        return {*self.merchants.values(), *self.reserved}

    @property
    def busy(self) -> int:
        return self.count - len(self.parked)

    def may_begin(self, share: int) -> bool:
        """Whether it may start a first call: it is below its share, or serves few merchants."""
        return min(self.busy, len(self.serves)) < share


class Slots:
    """The slots as one partition sees them. Thread-safe: one thread starts calls, others end them.

    A parked call has ended, but its result is not saved yet: only other partitions, whose Redis may
    be available, can use its slot.
    """

    def __init__(self, calls_max: Callable[[], int]) -> None:
        self._calls_max = calls_max
        self._changed = threading.Condition()
        self._held = _Held()
        self._all = [self._held]

    def sibling(self) -> "Slots":
        """The same slots for another partition."""
        other = Slots(self._calls_max)
        other._changed, other._all = self._changed, self._all
        self._all.append(other._held)
        return other

    @property
    def is_shared(self) -> bool:
        """Whether other partitions use the slots, too."""
        return len(self._all) > 1

    @property
    def free(self) -> int:
        """Slots for merchants with none in flight."""
        busy = sum(held.busy for held in self._all)
        return max(self._calls_max() - max(self._held.count, busy), 0)

    def _share(self, held: _Held) -> int:
        """The most that a partition may hold: all, unless another one claims an even share."""
        calls_max, now = self._calls_max(), time.monotonic()
        others = [one for one in self._all if one is not held]
        contenders = sum(1 for one in others if one.busy or one.claims_until > now)
        even = max(calls_max // (contenders + 1), calls_max // _CONTENDERS_MAX, 1)
        is_claimed = any(one.claims_until > now and one.busy < even for one in others)
        return even if is_claimed else calls_max

    def _rivals(self) -> Iterator[float]:
        """Since when others wait for a first call that they may start, longer than this one."""
        now, held = time.monotonic(), self._held
        own = held.idle_since if held.claims_until > now else math.inf
        waiting = [one for one in self._all if one.claims_until > now and one.idle_since < own]
        waiting.sort(key=lambda one: one.idle_since)
        return (one.idle_since for one in waiting if one.may_begin(self._share(one)))

    @property
    def in_flight(self) -> frozenset[str]:
        """Ids of this partition's entries in flight."""
        with self._changed:
            return frozenset(self._held.merchants)

    def occupy(self, works: Iterable[Work]) -> None:
        with self._changed:
            self._held.merchants.update((work.entry_id, work.merchant) for work in works)

    def park(self, work: Work) -> None:
        """Frees the slot of a call whose result could not be saved, for other partitions."""
        with self._changed:
            if work.entry_id in self._held.merchants:
                self._held.parked.add(work.entry_id)
                self._notify()

    def _notify(self) -> None:
        # One partition starts several calls; all would only contend for the lock. The others check
        # again within BLOCK_MS.
        if not (self.is_shared and self._left()):
            self._changed.notify_all()
        else:
            self._changed.notify()

    def release(self, works: Iterable[Work]) -> None:
        with self._changed:
            for work in works:
                self._held.merchants.pop(work.entry_id, None)
                self._held.parked.discard(work.entry_id)
            self._notify()

    @contextlib.contextmanager
    def reserve(self, requested: Mapping[str, int]) -> Iterator[Counter[str]]:
        """Reserves slots; yields how many each merchant gets. Call `occupy` within the block."""
        with self._changed:
            granted = self._shares(requested)
            self._claim(requested, granted)
            self._held.reserved = granted
        try:
            yield granted
        finally:
            with self._changed:
                self._held.reserved = Counter()

    def _claim(self, requested: Mapping[str, int], granted: Counter[str]) -> None:
        """Claims what was not granted."""
        now, held = time.monotonic(), self._held
        calling = granted.keys() | held.merchants.values()
        if not requested.keys() - calling:
            held.idle_since = math.inf
        elif granted or held.claims_until <= now or held.idle_since == math.inf:
            held.idle_since = now
        is_short = granted.total() < sum(requested.values())
        held.claims_until = now + _CLAIM_SECONDS if is_short else 0.0

    def _shares(self, requested: Mapping[str, int]) -> Counter[str]:
        """How many of the requested calls each merchant may start now: fewest in flight first.

        Within the partition's share. For a merchant with none in flight it may exceed that, by one
        call at a time, unless others have waited longer, or it serves as many merchants already.
        Any partition leaves a slot to each that has waited longer than _CLAIM_SECONDS for one, and
        may take it.
        """
        granted: Counter[str] = Counter()
        if not (free := self.free):
            return granted
        in_flight, even = Counter(self._held.merchants.values()), self._share(self._held)
        share, may_begin = even - self._held.busy, self._held.may_begin(even)
        rivals = list(itertools.islice(self._rivals(), free))
        late = time.monotonic() - _CLAIM_SECONDS
        kept = sum(since < late for since in rivals)
        left = {merchant: count for merchant, count in requested.items() if count}
        while left and free:
            merchant = min(left, key=in_flight.__getitem__)
            if in_flight[merchant]:
                if in_flight[merchant] > _PER_FREE_SLOT * (min(free - kept, share) - 1):
                    break
            elif free <= kept or (share <= 0 and (granted or not may_begin or free <= len(rivals))):
                break
            granted[merchant] += 1
            in_flight[merchant] += 1
            free, share = free - 1, share - 1
            left[merchant] -= 1
            if not left[merchant]:
                del left[merchant]
        return granted

    def wait(self, waiting: Collection[str], seconds: float) -> None:
        """Waits until a merchant in `waiting` (any merchant if empty) may start a call."""
        requested = dict.fromkeys(waiting, 1)
        with self._changed:
            # Results that cannot be saved may fill all slots: it could use none.
            may_claim = requested and self._held.count < self._calls_max()
            if may_claim and not self._shares(requested):
                self._claim(requested, Counter())
            may_start = self._changed.wait_for(
                lambda: self._shares(requested) if requested else self.free, seconds
            )
            if may_start and not self.is_shared:
                self._changed.wait_for(lambda: 2 * self.free > self._calls_max(), _GATHER_SECONDS)

    def wait_idle(self, seconds: float) -> int:
        """Waits up to `seconds` until nothing is in flight; returns the number left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left(), seconds)
            return self._left()

    def _left(self) -> int:
        return sum(len(held.merchants) for held in self._all)
