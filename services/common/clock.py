"""Timestamps: milliseconds since the epoch and RFC 3339."""

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Returns seconds since the epoch; `time.time` except in tests."""


def now_ms(clock: Clock = time.time) -> int:
    """Milliseconds since the epoch."""
    return int(clock() * 1000)


def rfc3339(time: int, digits: int = 3) -> str:
    """Formats milliseconds since the epoch, or with 6 digits microseconds, as RFC 3339 in UTC."""
    seconds, fraction = divmod(time, 10**digits)
    return f"{_second(seconds)}.{fraction:0{digits}}Z"


# Cached: each transaction formats several timestamps, nearly all within the same few seconds.
@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")
