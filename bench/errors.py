"""The benchmark's error."""

from __future__ import annotations


class MeasureError(Exception):
    """The measurement would be invalid; the message says why."""
