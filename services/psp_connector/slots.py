"""Slots for concurrent PSP calls, shared between merchants.

A busy merchant gets most slots but never all, so that the next merchant finds one free however long
calls take.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from services.psp_connector.records import Work

# The last free slot is reserved for a merchant with none in flight; each further free slot allows a
# merchant three more (dynamic thresholds, Choudhury and Hahne, 1998). Of 12 slots one merchant gets
# at most 9, two get 5 each.
_PER_FREE_SLOT = 3
# Below half capacity, wait briefly so that one read fills several slots: reading one by one would
# cost a fast PSP's connector more than the charges.
_GATHER_SECONDS = 0.002


class Slots:
    """Thread-safe: one thread starts calls, others end them."""

    def __init__(self, allowed: Callable[[], int]) -> None:
        self._allowed = allowed
        self._merchants: dict[str, str] = {}
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """Number of calls that may start now."""
        return max(self._allowed() - len(self._merchants), 0)

    @property
    def in_flight(self) -> frozenset[str]:
        """Ids of the entries in flight."""
        with self._changed:
            return frozenset(self._merchants)

    def occupy(self, works: Iterable[Work]) -> None:
        """Takes slots for calls about to start."""
        with self._changed:
            self._merchants.update((work.entry_id, work.merchant) for work in works)

    def release(self, works: Iterable[Work]) -> None:
        """Frees slots of calls whose results are saved."""
        with self._changed:
            for work in works:
                self._merchants.pop(work.entry_id, None)
            self._changed.notify_all()

    def shares(self, requested: Mapping[str, int]) -> Counter[str]:
        """Returns how many of the requested calls each merchant may start now.

        Merchants with the fewest in flight come first; ties are broken by the order of `requested`.
        """
        with self._changed:
            return self._shares(requested)

    def _shares(self, requested: Mapping[str, int]) -> Counter[str]:
        in_flight, free = Counter(self._merchants.values()), self.free
        left = {merchant: count for merchant, count in requested.items() if count}
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
        """Waits until a merchant in `waiting` (any merchant if empty) may start a call."""
        requested = dict.fromkeys(waiting, 1)
        with self._changed:
            if self._changed.wait_for(
                lambda: self._shares(requested) if requested else self.free, seconds
            ):
                self._changed.wait_for(lambda: 2 * self.free > self._allowed(), _GATHER_SECONDS)

    def wait_idle(self, seconds: float) -> int:
        """Waits up to `seconds` until nothing is in flight; returns the number left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._merchants, seconds)
            return len(self._merchants)
