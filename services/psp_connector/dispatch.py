"""Which entries of the queue are worked on next: each merchant's in its order, within its share.

The stream is in the order of arrival. An entry whose merchant has its share of the slots waits, and
those behind it are read: a few wait here, the others are set aside in Redis for whichever connector
has a slot for that merchant first.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.psp_connector.queue import Queue
    from services.psp_connector.records import Entry, Work
    from services.psp_connector.slots import Slots

# How long a read of the queue waits; retries that fall due are looked for in between.
BLOCK_MS = 200
# While entries wait for a slot: between looks for new ones, and how many are read at a time.
_POLL_SECONDS = 0.01
_READ_MAX = 256


class Dispatcher:
    """For the main loop's thread."""

    def __init__(self, queue: Queue, slots: Slots, concurrency: int) -> None:
        self._queue = queue
        self._slots = slots
        # So many of a merchant's entries wait here, a round of calls: other connectors may be idle.
        self._ready_max = concurrency
        self._ready: defaultdict[str, deque[Entry]] = defaultdict(deque)
        self._aside: set[str] = set()
        self._waiting: dict[str, None] = {}
        """Merchants that are in one of both; who was served last comes last."""
        self._read_at = 0.0

    def _held(self) -> list[Entry]:
        return [entry for entries in self._ready.values() for entry in entries]

    def forget(self) -> None:
        """After the lease has lapsed: others may have taken over what waits here."""
        self._ready.clear()
        self._waiting = dict.fromkeys(self._aside)

    def leave(self) -> None:
        """Sets aside what waits here, for the other connectors."""
        if held := self._held():
            self._queue.assign(held, {})
        self._ready.clear()

    def reclaim(self) -> list[Entry]:
        """Sets aside what dead connectors have abandoned, and what this one lost; returns it."""
        found = self._queue.reclaim(self._slots.in_flight.union(e.id for e in self._held()))
        self._aside.update(found.merchants)
        self._waiting |= dict.fromkeys(found.merchants)
        return found.entries

    def next(self) -> list[Work]:
        """Begins what may start now; waits a little when there is nothing."""
        idle = not self._waiting
        if time.monotonic() < self._read_at or idle:
            self._slots.wait(self._first_waiting(), BLOCK_MS / 1000 if idle else _POLL_SECONDS)
        if not self._slots.free:
            return []
        aside = self._sort(self._read(idle=idle))
        shares = self._slots.shares(
            {
                merchant: self._ready_max if merchant in self._aside else len(self._ready[merchant])
                for merchant in self._first_waiting()
            }
        )
        claims = {
            merchant: self._ready_max
            for merchant, count in shares.items()
            if count > len(self._ready[merchant])
        }
        if aside or claims:
            self._assign(aside, claims)
        return self._queue.begin([e for m, count in shares.items() for e in self._pop(m, count)])

    def _first_waiting(self) -> list[str]:
        """So many that half of them at least have nothing in flight."""
        return list(itertools.islice(self._waiting, 2 * self._ready_max))

    def _read(self, *, idle: bool) -> list[Entry]:
        if idle:
            return self._queue.read(self._slots.free, BLOCK_MS)
        if time.monotonic() < self._read_at:
            return []
        new = self._queue.read(_READ_MAX)
        self._read_at = 0.0 if len(new) == _READ_MAX else time.monotonic() + _POLL_SECONDS
        return new

    def _sort(self, new: Iterable[Entry]) -> list[Entry]:
        """Lets new entries wait; returns those to be set aside, behind others of their merchant."""
        aside: list[Entry] = []
        for entry in new:
            merchant = entry.merchant
            self._waiting.setdefault(merchant)
            if merchant in self._aside or len(self._ready[merchant]) >= self._ready_max:
                self._aside.add(merchant)
                aside.append(entry)
            else:
                self._ready[merchant].append(entry)
        return aside

    def _assign(self, aside: list[Entry], claims: dict[str, int]) -> None:
        claimed = self._queue.assign(aside, claims)
        for entry in claimed:
            self._ready[entry.merchant].append(entry)
            self._waiting.setdefault(entry.merchant)
        for merchant in claims:
            # Fewer than asked for: there are no more. What came meanwhile, `reclaim` finds.
            if sum(entry.merchant == merchant for entry in claimed) < self._ready_max:
                self._aside.discard(merchant)

    def _pop(self, merchant: str, count: int) -> Iterable[Entry]:
        entries = self._ready[merchant]
        yield from [entries.popleft() for _ in range(min(count, len(entries)))]
        del self._waiting[merchant]
        if entries or merchant in self._aside:
            self._waiting[merchant] = None
        if not entries:
            del self._ready[merchant]
