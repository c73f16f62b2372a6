"""What an attempt came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryResult:
    """The attempt gave no answer; another one follows after the delay."""

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
    """Why it failed; a dead letter says so, too."""


Result = FinalResult | RetryResult
