from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.common.clock import rfc3339

YEAR_9999_MS = 253_402_300_799_999


@given(st.integers(0, YEAR_9999_MS))
def test_a_time_keeps_its_milliseconds(milliseconds: int) -> None:
    """What is written is read back by the standard library as the same moment."""
    text = rfc3339(milliseconds)
    assert len("2026-11-23T06:00:00.000Z") == len(text)
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo == UTC
    seconds, rest = divmod(milliseconds, 1000)
    assert (datetime.fromtimestamp(seconds, UTC), rest * 1000) == (
        moment.replace(microsecond=0), moment.microsecond,
    )  # fmt: skip
