"""Slots for concurrent PSP calls, shared by partitions and their merchants.

A busy merchant gets most slots, but never all: the next merchant finds one free however long calls
take, in whatever partition. A busy partition gets the slots that no other one can use; above its
even share, only merchants with no call in flight get one. Those waiting for a first call take
turns; after a call, a merchant's next turn is deferred for as long as that call took, so that
merchants whose calls hang do not hold up the others.
"""

import contextlib
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
# Unsaved results, which are retried for 30 s; a partition with that many begins no call. One
# merchant has at most as many as it gets slots.
_PARKED_MAX = 4096
# The longest deferral, as after a call that hangs: the connector may have been suspended meanwhile.
_DEFER_SECONDS_MAX = 5.0
# If more partitions than this are busy, they take turns: single calls would cost a round trip to
# Redis each.
_CONTENDERS_MAX = 4


class _Held:
    """The slots of one partition."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[str, float]] = {}
        """Merchants of the entries in flight and their monotonic start times, by entry."""
        self.parked: set[str] = set()
        self.reserved: Counter[str] = Counter()
        self.deferred: dict[str, float] = {}
        """Monotonic time until which a merchant's first call waits for those of others."""
        self.claims_until = 0.0
        self.idle_since = math.inf
        """Since when a merchant with none in flight waits, or since the last grant."""
        self.turn = math.inf
        """`turn_of` the merchants that wait."""

    @property
    def count(self) -> int:
        return len(self.calls) + self.reserved.total()

    @property
    def merchants(self) -> list[str]:
        """The merchant of each call in flight."""
        return [merchant for merchant, _ in self.calls.values()]

    @property
    def unsaved(self) -> Counter[str]:
        """How many parked calls each merchant has."""
        return Counter(self.calls[entry_id][0] for entry_id in self.parked)

    @property
    def busy(self) -> int:
        return self.count - len(self.parked)

    def turn_of(self, merchants: Iterable[str]) -> float:
        """When the first of these merchants, none with a call in flight, has its turn."""
        first = min((self.deferred.get(merchant, 0.0) for merchant in merchants), default=math.inf)
        return max(self.idle_since, first)

    def defer(self, entry_id: str) -> None:
        """Defers the next turn of a merchant for as long as its call took, which ends now."""
        if entry_id not in self.calls or entry_id in self.parked:
            return
        now = time.monotonic()
        merchant, started = self.calls[entry_id]
        self.deferred = {one: until for one, until in self.deferred.items() if until > now}
        until = now + min(now - started, _DEFER_SECONDS_MAX)
        self.deferred[merchant] = max(self.deferred.get(merchant, 0.0), until)


class Slots:
    """The slots as one partition sees them. Thread-safe: one thread starts calls, others end them.

    A parked call has ended, but its result is not saved yet: perhaps a key of its merchant has
    another type. It takes a slot of what that merchant may have, but of no other one.
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
        if self._is_full:
            return 0
        return max(self._calls_max() - sum(held.busy for held in self._all), 0)

    @property
    def _is_full(self) -> bool:
        return len(self._held.parked) >= _PARKED_MAX

    def _share(self) -> int:
        """The most that the partition may hold: all, unless another one claims an even share."""
        calls_max, now = self._calls_max(), time.monotonic()
        others = [one for one in self._all if one is not self._held]
        contenders = sum(1 for one in others if one.busy or one.claims_until > now)
        even = max(calls_max // (contenders + 1), calls_max // _CONTENDERS_MAX, 1)
        is_claimed = any(one.claims_until > now and one.busy < even for one in others)
        return even if is_claimed else calls_max

    def _rivals(self, waiting: Iterable[str]) -> list[float]:
        """The turns of partitions whose first call comes before one of these merchants."""
        now, held = time.monotonic(), self._held
        own = held.turn_of(waiting) if held.claims_until > now else math.inf
        return [one.turn for one in self._all if one.claims_until > now and one.turn < own]

    @property
    def unsaved(self) -> frozenset[str]:
        """This partition's merchants with unsaved results."""
        with self._changed:
            return frozenset(self._held.unsaved)

    @property
    def in_flight(self) -> frozenset[str]:
        """Ids of this partition's entries in flight."""
        with self._changed:
            return frozenset(self._held.calls)

    def occupy(self, works: Iterable[Work]) -> None:
        now = time.monotonic()
        with self._changed:
            self._held.calls.update((work.entry_id, (work.merchant, now)) for work in works)

    def park(self, work: Work) -> None:
        """Frees the slot of a call whose result could not be saved."""
        with self._changed:
            if work.entry_id in self._held.calls:
                self._held.defer(work.entry_id)
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
                self._held.defer(work.entry_id)
                self._held.calls.pop(work.entry_id, None)
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
        waiting = requested.keys() - granted.keys() - set(held.merchants)
        if not waiting:
            held.idle_since = math.inf
        elif granted or held.claims_until <= now or held.idle_since == math.inf:
            held.idle_since = now
        held.turn = held.turn_of(waiting)
        is_short = granted.total() < sum(requested.values())
        held.claims_until = now + _CLAIM_SECONDS if is_short else 0.0

    def _shares(self, requested: Mapping[str, int]) -> Counter[str]:
        """How many of the requested calls each merchant may start now: fewest in flight first.

        Within the partition's share. For a merchant with none in flight it may exceed that, by one
        call at a time, unless the turns of others come first. Any partition leaves a slot to each
        whose turn came more than _CLAIM_SECONDS ago.
        """
        granted: Counter[str] = Counter()
        if not (free := self.free):
            return granted
        now, held = time.monotonic(), self._held
        in_flight, share = Counter(held.merchants), self._share() - held.busy
        turns = {one: max(held.deferred.get(one, now), now) for one in requested}
        unsaved = held.unsaved
        rivals = self._rivals(requested.keys() - in_flight.keys())
        kept = sum(turn < now - _CLAIM_SECONDS for turn in rivals)
        left = {merchant: count for merchant, count in requested.items() if count}
        while left and free:
            merchant = min(left, key=lambda one: (in_flight[one], turns[one]))
            if in_flight[merchant]:
                for_it = min(free - kept, share) - unsaved[merchant]
                if in_flight[merchant] > _PER_FREE_SLOT * (for_it - 1):
                    if not unsaved[merchant]:
                        break
                    del left[merchant]
                    continue
            elif free <= kept or (share <= 0 and (granted or free <= len(rivals))):
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
            if requested and not self._is_full and not self._shares(requested):
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
        return sum(len(held.calls) for held in self._all)
