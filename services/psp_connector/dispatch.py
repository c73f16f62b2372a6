"""Fair dispatch: chooses the next entries, in order within each merchant, limited to its share.

The stream is in order of arrival. If a merchant already has its share of the slots, its entries
wait while those behind them are read: a few in memory, the rest set aside in Redis for the first
connector with a slot for that merchant.
"""

import itertools
import time
from collections import defaultdict, deque
from collections.abc import Iterable

from services.psp_connector.queue import Queue
from services.psp_connector.records import Entry, Work
from services.psp_connector.slots import Slots

# How long a queue read blocks; due retries are promoted in between.
BLOCK_MS = 200
# While entries wait for a slot: the interval between reads, and entries per read.
_POLL_SECONDS = 0.01
_READ_MAX = 256
# Rounds of calls in memory, of all merchants: other connectors may be idle.
_HELD_ROUNDS = 4
# Merchants of a backlog, remembered.
_SEEN_MAX = 10_000


class Dispatcher:
    """Chooses entries and begins their attempts. One thread only."""

    def __init__(self, queue: Queue, slots: Slots, concurrency: int) -> None:
        self._queue = queue
        self._slots = slots
        # Entries per merchant kept in memory: one round of calls, as other connectors may be idle.
        self._ready_max = concurrency
        self.held_max = _HELD_ROUNDS * concurrency
        self._ready: defaultdict[str, deque[Entry]] = defaultdict(deque)
        self._aside: set[str] = set()
        self._waiting: dict[str, None] = {}
        """Merchants in `_ready` or `_aside`, least recently served first."""
        self._read_at = 0.0
        self._seen: set[str] = set()
        """Merchants of the backlog that is read as it comes."""

    def _held(self) -> list[Entry]:
        return [entry for entries in self._ready.values() for entry in entries]

    def _room(self) -> int:
        return max(self.held_max - len(self._held()), 0)

    def forget(self) -> None:
        """Drops waiting entries: after the lease expired, others may have reclaimed them."""
        self._ready.clear()
        self._waiting = dict.fromkeys(self._aside)

    def leave(self) -> None:
        """Sets the waiting entries aside for other connectors."""
        if held := sorted(self._held(), key=_order):
            self._queue.assign(held, {})
        self._aside.update(self._ready)
        self._ready.clear()

    def reclaim(self) -> None:
        """Sets aside entries abandoned by dead connectors or lost by this one."""
        merchants = self._queue.reclaim(self._slots.in_flight.union(e.id for e in self._held()))
        self._aside.update(merchants)
        self._waiting |= dict.fromkeys(merchants)

    def next(self) -> list[Work]:
        """Begins attempts, each in a slot; waits briefly if there are no entries or no slots.

        If other partitions keep all slots, an idle one reads an entry, to claim a slot for it.
        """
        idle, slots = not self._waiting, self._slots
        if idle or time.monotonic() < self._read_at or not slots.free:
            slots.wait(self._first_waiting(), BLOCK_MS / 1000 if idle else _POLL_SECONDS)
        free = slots.free  # once: other partitions use the slots, too
        if not (free or (idle and slots.is_shared)):
            return []
        aside = self._sort(self._read(free, idle=idle), self._room() if free else 0)
        requested = {
            merchant: self._ready_max if merchant in self._aside else len(self._ready[merchant])
            for merchant in self._first_waiting()
        }
        with slots.reserve(requested) as shares:
            more = self._room() // max(len(shares), 1)
            claims = {
                merchant: min(count + more, self._ready_max)
                for merchant, count in shares.items()
                if count > len(self._ready[merchant])
            }
            if aside or claims:
                self._assign(aside, claims)
            entries = [e for m, count in shares.items() for e in self._pop(m, count)]
            works = self._queue.begin(entries)
            slots.occupy(works)
        return works

    def _first_waiting(self) -> list[str]:
        """The least recently served merchants: enough that half have nothing in flight.

        Those with unsaved results last, of which any number may be at their limit.
        """
        has_unsaved = self._slots.unsaved.__contains__
        first = itertools.filterfalse(has_unsaved, self._waiting)
        last = filter(has_unsaved, self._waiting)
        return list(itertools.islice(itertools.chain(first, last), 2 * self._ready_max))

    def _read(self, free: int, *, idle: bool) -> list[Entry]:
        if idle:
            new = self._queue.read(free or 1, BLOCK_MS)
            return new + self._queue.read(_READ_MAX) if self._has_turns(new, free) else new
        if time.monotonic() < self._read_at:
            return []
        new = self._queue.read(_READ_MAX)
        self._read_at = 0.0 if len(new) == _READ_MAX else time.monotonic() + _POLL_SECONDS
        return new

    def _has_turns(self, new: list[Entry], free: int) -> bool:
        """Notes who is in a backlog; returns whether one has a turn again, before others' first.

        A backlog with one entry of each is read as it comes, by all connectors.
        """
        if not free or len(new) < free:
            self._seen.clear()
            return False
        merchants = {entry.merchant for entry in new}
        is_again = len(merchants) < len(new) or not merchants.isdisjoint(self._seen)
        self._seen = merchants if len(self._seen) > _SEEN_MAX else merchants | self._seen
        return is_again

    def _sort(self, new: Iterable[Entry], room: int) -> list[Entry]:
        """Queues up to `room` new entries in memory; returns the surplus, to be set aside."""
        aside: list[Entry] = []
        for entry in new:
            merchant = entry.merchant
            self._waiting.setdefault(merchant)
            is_aside = room <= 0 or merchant in self._aside
            if is_aside or len(self._ready[merchant]) >= self._ready_max:
                self._aside.add(merchant)
                aside.append(entry)
            else:
                self._ready[merchant].append(entry)
                room -= 1
        return aside

    def _assign(self, aside: list[Entry], claims: dict[str, int]) -> None:
        claimed = self._queue.assign(aside, claims)
        for entry in claimed:
            self._ready[entry.merchant].append(entry)
            self._waiting.setdefault(entry.merchant)
        for merchant, count in claims.items():
            # Fewer than requested: none are left. `reclaim` finds those set aside later.
            if sum(entry.merchant == merchant for entry in claimed) < count:
                self._aside.discard(merchant)

    def _pop(self, merchant: str, count: int) -> Iterable[Entry]:
        entries = self._ready[merchant]
        yield from [entries.popleft() for _ in range(min(count, len(entries)))]
        del self._waiting[merchant]
        if entries or merchant in self._aside:
            self._waiting[merchant] = None
        if not entries:
            del self._ready[merchant]


def _order(entry: Entry) -> list[int]:
    return [int(number) for number in entry.id.split("-")]
