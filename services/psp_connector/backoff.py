"""Exponential backoff with full jitter.

Each delay is random between zero and a bound that doubles, so that simultaneous failures are not
retried simultaneously (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Backoff:
    """Computes the delay before the next attempt."""

    def __init__(
        self,
        first_seconds: float,
        seconds_max: float,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_seconds = first_seconds
        self._seconds_max = seconds_max
        self._uniform = uniform

    def delay_seconds(self, attempt: int, retry_after_seconds: float = 0.0) -> float:
        """Delay after attempt number `attempt` (from 1); at least `retry_after_seconds`."""
        doublings = min(attempt - 1, 32)
        bound = min(self._first_seconds * 2**doublings, self._seconds_max)
        return max(self._uniform(0, bound), retry_after_seconds)
