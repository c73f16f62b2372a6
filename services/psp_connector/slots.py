"""The calls at the PSP that may be under way at a time, shared between merchants.

A merchant with much to do gets most slots, never all: whoever comes next finds one free, however
long the calls of the others take.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from services.psp_connector.records import Work

# The last free slot is for a merchant with none in flight; each further one that is free lets a
# merchant have three more (the dynamic thresholds of Choudhury and Hahne, 1998). Of 12 slots
# one merchant gets 9 at the most, two get 5 each.
_PER_FREE_SLOT = 3
# Below half capacity, wait briefly so that one read fills several slots: reading one by one would
# cost a fast PSP's connector more than the charges.
_GATHER_SECONDS = 0.002


class Slots:
    """For several threads: one that starts calls, and those that end them."""

    def __init__(self, allowed: Callable[[], int]) -> None:
        self._allowed = allowed
        self._merchants: dict[str, str] = {}
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """How many calls may be started."""
        return max(self._allowed() - len(self._merchants), 0)

    @property
    def in_flight(self) -> frozenset[str]:
        """The entries that are worked on."""
        with self._changed:
            return frozenset(self._merchants)

    def occupy(self, works: Iterable[Work]) -> None:
        """These calls are about to start."""
        with self._changed:
            self._merchants.update((work.entry_id, work.merchant) for work in works)

    def release(self, works: Iterable[Work]) -> None:
        """These are over, and what came of them is saved."""
        with self._changed:
            for work in works:
                self._merchants.pop(work.entry_id, None)
            self._changed.notify_all()

    def shares(self, asking: Mapping[str, int]) -> Counter[str]:
        """How many calls each merchant may start now, of as many as it asks for.

        The merchant with the fewest in flight comes first; among equals, the one first in `asking`.
        """
        with self._changed:
            return self._shares(asking)

    def _shares(self, asking: Mapping[str, int]) -> Counter[str]:
        in_flight, free = Counter(self._merchants.values()), self.free
        left = {merchant: count for merchant, count in asking.items() if count}
        granted: Counter[str] = Counter()
        while left and free:
            merchant = min(left, key=in_flight.__getitem__)
            if in_flight[merchant] > _PER_FREE_SLOT * (free - 1):
                break
            granted[merchant] += 1
            in_flight[merchant] += 1
            free -= 1
            left[merchant] -= 1
            if not left[merchant]:
                del left[merchant]
        return granted

    def wait(self, waiting: Collection[str], seconds: float) -> None:
        """Waits until one of the `waiting`, or when there are none anyone, may start a call."""
        asking = dict.fromkeys(waiting, 1)
        with self._changed:
            if self._changed.wait_for(
                lambda: self._shares(asking) if asking else self.free, seconds
            ):
                self._changed.wait_for(lambda: 2 * self.free > self._allowed(), _GATHER_SECONDS)

    def wait_idle(self, seconds: float) -> int:
        """Waits up to `seconds` until nothing is in flight; returns how much is."""
        with self._changed:
            self._changed.wait_for(lambda: not self._merchants, seconds)
            return len(self._merchants)
