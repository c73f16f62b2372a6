"""Exponential backoff with full jitter.

Each delay is random between zero and a bound that doubles, so that simultaneous failures are not
retried simultaneously (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Computes the delay before the next attempt."""

    first_seconds: float
    seconds_max: float
    uniform: Callable[[float, float], float] = random.uniform

    def delay_seconds(self, attempt: int, retry_after_seconds: float = 0.0) -> float:
        """Delay after attempt number `attempt` (from 1); at least `retry_after_seconds`."""
        doublings = min(attempt - 1, 32)
        bound = min(self.first_seconds * 2**doublings, self.seconds_max)
        return max(self.uniform(0, bound), retry_after_seconds)
