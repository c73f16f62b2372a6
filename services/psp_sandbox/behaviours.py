"""Behaviour of each payment method, and the faults that can be injected.

Stripe's test names behave as in https://docs.stripe.com/testing; codes and decline codes are from
the table there (some declines have only a code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from services.psp_sandbox.errors import StripeError

if TYPE_CHECKING:
    from collections.abc import Mapping

FaultKind = Literal[
    "error_500",
    "rate_limited",
    "unavailable",
    "timeout",
    "connection_closed",
    "timeout_after_capture",
    "connection_closed_after_capture",
]

Delivery = Literal["sent", "held", "dropped"]
"""`held`: no response until the client gives up; `dropped`: the connection is closed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault. Without a status the request is processed and only its response is lost."""

    status: int = 0
    message: str = ""
    delivery: Delivery = "sent"

    def error(self) -> StripeError:
        """The error response for this fault."""
        return StripeError(
            self.status, self.message, code="rate_limit" if self.status == 429 else ""
        )


FAULTS: Mapping[FaultKind, Fault] = {
    "error_500": Fault(500, "The sandbox fails on request; nothing was charged."),
    "rate_limited": Fault(429, "Request rate limit exceeded, on request; nothing was charged."),
    "unavailable": Fault(503, "The sandbox is down on request; nothing was charged."),
    "timeout": Fault(504, "Held on request; nothing was charged.", "held"),
    "connection_closed": Fault(503, "Closed on request; nothing was charged.", "dropped"),
    "timeout_after_capture": Fault(delivery="held"),
    "connection_closed_after_capture": Fault(delivery="dropped"),
}


@dataclass(frozen=True, slots=True)
class Decline:
    """Stripe's error for a declined card."""

    code: str
    message: str
    decline_code: str = ""
    param: str = ""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Behaviour of a payment method.

    Args:
        decline: declines with this; captures if None.
        fault: fails with this fault.
        fault_count_max: number of faults per idempotency key; unlimited if None.
        slow: waits before processing.
    """

    decline: Decline | None = None
    fault: FaultKind | None = None
    fault_count_max: int | None = None
    slow: bool = False


def _card_declined(decline_code: str, message: str = "Your card was declined.") -> Behaviour:
    return Behaviour(Decline("card_declined", message, decline_code))


_CAPTURED = Behaviour()
DECLINED = _card_declined("generic_decline")

_DECLINED = {
    "": DECLINED,
    "InsufficientFunds": _card_declined("insufficient_funds", "Your card has insufficient funds."),
    "LostCard": _card_declined("lost_card"),
    "StolenCard": _card_declined("stolen_card"),
    "Fraudulent": _card_declined("fraudulent"),
    "VelocityLimitExceeded": _card_declined("card_velocity_exceeded"),
    "ExpiredCard": Behaviour(
        Decline("expired_card", "Your card has expired.", param="exp_month"),
    ),
    "IncorrectCvc": Behaviour(
        Decline("incorrect_cvc", "Your card's security code is incorrect.", param="cvc"),
    ),
    "ProcessingError": Behaviour(
        Decline("processing_error", "An error occurred while processing your card. Try again."),
    ),
}

PAYMENT_METHODS: Mapping[str, Behaviour] = {
    **dict.fromkeys(
        (
            "pm_card_visa",
            "pm_card_visa_debit",
            "pm_card_mastercard",
            "pm_card_mastercard_debit",
            "pm_card_mastercard_prepaid",
            "pm_card_amex",
            "pm_card_discover",
            "pm_card_diners",
            "pm_card_jcb",
            "pm_card_unionpay",
        ),
        _CAPTURED,
    ),
    # Stripe has most of these with and without the brand.
    **{f"pm_card_chargeDeclined{why}": behaviour for why, behaviour in _DECLINED.items()},
    **{f"pm_card_visa_chargeDeclined{why}": behaviour for why, behaviour in _DECLINED.items()},
    "pm_sandbox_slow": Behaviour(slow=True),
    "pm_sandbox_flaky": Behaviour(fault="error_500", fault_count_max=2),
    "pm_sandbox_error_500": Behaviour(fault="error_500"),
    "pm_sandbox_rate_limited": Behaviour(fault="rate_limited"),
    "pm_sandbox_timeout": Behaviour(fault="timeout"),
    "pm_sandbox_timeout_after_capture": Behaviour(fault="timeout_after_capture"),
}
