from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from services.psp_connector.psp import Captured, Outcome, Transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.psp_connector.psp import Charge


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


def slowly(charge: Charge, _call: int) -> Captured:
    time.sleep(0.02)
    return Captured(f"pi_{charge.transaction_id}")
