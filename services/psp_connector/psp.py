"""The Payment Service Provider as the connector sees it: one call, four ways it can end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

# A PSP that asks for more than that is asked again all the same.
RETRY_AFTER_SECONDS_MAX = 3600.0


@dataclass(frozen=True)
class Charge:
    """What is to be charged. `transaction_id` is the idempotency key too: charged at most once."""

    transaction_id: str
    request_id: str
    amount: int
    currency: str
    payment_method: str


@dataclass(frozen=True)
class Captured:
    """The money is taken."""

    reference: str


@dataclass(frozen=True)
class Declined:
    """The card says no, and will say so again."""

    code: str
    reference: str = ""


@dataclass(frozen=True)
class Refused:
    """The PSP does not understand or allow this request, and never will."""

    reason: str


@dataclass(frozen=True)
class Transient:
    """No answer, or not now: worth another attempt."""

    reason: str
    retry_after_seconds: float = 0.0


Outcome = Captured | Declined | Refused | Transient


class PSP(Protocol):
    """A Payment Service Provider. Neither method raises."""

    def charge(self, charge: Charge) -> Outcome:
        """Charges, once for each transaction id however often it is called."""

    def answers(self) -> bool:
        """Whether it would take a charge now; costs no money."""
