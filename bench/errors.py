"""Why something could not be measured."""

from __future__ import annotations


class MeasureError(Exception):
    """A measurement would not mean what it says; the text tells why."""
