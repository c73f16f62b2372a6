"""Results of an attempt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryResult:
    """No definite response; retry after the delay."""

    reason: str
    delay_seconds: float


@dataclass(frozen=True)
class FinalResult:
    """The attempt ended the transaction."""

    status: str
    psp_reference: str = ""
    decline_code: str = ""
    points: int = 0
    reason: str = ""
    """Why it failed; also the reason of the dead letter."""


Result = FinalResult | RetryResult
