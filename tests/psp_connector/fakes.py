from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from services.psp_connector.psp import Captured, Outcome, Transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.psp_connector.psp import Charge
    from services.psp_connector.queue import Queue
    from services.psp_connector.records import Work


class FakePsp:
    """A PSP that answers as a function of the charge says, and captures once for each id."""

    def __init__(self, response: Callable[[Charge, int], Outcome] | None = None) -> None:
        self._answer = response or (lambda charge, _call: Captured(f"pi_{charge.transaction_id}"))
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.captured: Counter[str] = Counter()
        self.up = True
        self.probes = 0

    def charge(self, charge: Charge) -> Outcome:
        with self._lock:
            self.calls[charge.transaction_id] += 1
            call = self.calls[charge.transaction_id]
        if not self.up:
            return Transient("no response")
        outcome = self._answer(charge, call)
        if isinstance(outcome, Captured):
            with self._lock:
                self.captured[charge.transaction_id] = 1
        return outcome

    def is_available(self) -> bool:
        self.probes += 1
        return self.up


def take(queue: Queue, count: int = 10) -> list[Work]:
    """Begins up to so many new transactions."""
    return queue.begin(queue.read(count, 10))


def take_over(queue: Queue, in_flight: frozenset[str] = frozenset()) -> list[Work]:
    """Begins all that connectors have abandoned, and what was set aside before."""
    merchants = queue.reclaim(in_flight).merchants
    return queue.begin(queue.assign([], dict.fromkeys(merchants, 100)))
