"""The time, as the platform writes it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Clock = Callable[[], float]
    """Seconds since the epoch; `time.time` unless a test says otherwise."""


def now_ms(clock: Clock = time.time) -> int:
    """Milliseconds since the epoch."""
    return int(clock() * 1000)


def rfc3339(milliseconds: int) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-11-23T06:00:00.000Z`."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
