from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.common.clock import rfc3339

YEAR_9999_SECONDS = 253_402_300_799


@given(st.sampled_from([3, 6]), st.integers(0, YEAR_9999_SECONDS), st.integers(0, 999_999))
def test_a_time_keeps_its_fraction(digits: int, seconds: int, micros: int) -> None:
    """The standard library parses a formatted time to the same moment."""
    fraction = micros // 10 ** (6 - digits)
    text = rfc3339(seconds * 10**digits + fraction, digits)
    assert len("2026-11-23T06:00:00.Z") + digits == len(text)
    kept = fraction * 10 ** (6 - digits)
    assert datetime.fromisoformat(text) == datetime.fromtimestamp(seconds, UTC).replace(
        microsecond=kept
    )
