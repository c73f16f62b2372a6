"""Behaviour of each payment method, and the faults that can be injected.

Stripe's test names behave as in https://docs.stripe.com/testing; codes and decline codes are from
the table there (some declines have only a code).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
    code: str = ""


FAULTS: Mapping[FaultKind, Fault] = {
    "error_500": Fault(500, "The sandbox fails on request; nothing was charged."),
    "rate_limited": Fault(429, "Too many requests; nothing was charged.", code="rate_limit"),
    "unavailable": Fault(503, "The sandbox is down on request; nothing was charged."),
    "timeout": Fault(504, "Held on request; nothing was charged.", "held"),
    "connection_closed": Fault(503, "Closed on request; nothing was charged.", "dropped"),
    "timeout_after_capture": Fault(delivery="held"),
    "connection_closed_after_capture": Fault(delivery="dropped"),
}


@dataclass(frozen=True, slots=True)
class Decline:
    """Stripe's codes for a declined card."""

    code: str
    decline_code: str = ""


DECLINED = Decline("card_declined", "generic_decline")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Behaviour of a payment method; captures by default."""

    decline: Decline | None = None
    fault: FaultKind | None = None
    fault_count_max: int | None = None
    """Faults per idempotency key; unlimited if None."""
    slow: bool = False


# Stripe has each with and without the brand.
_DECLINES = {
    "": DECLINED,
    "InsufficientFunds": Decline("card_declined", "insufficient_funds"),
    "LostCard": Decline("card_declined", "lost_card"),
    "StolenCard": Decline("card_declined", "stolen_card"),
    "Fraudulent": Decline("card_declined", "fraudulent"),
    "VelocityLimitExceeded": Decline("card_declined", "card_velocity_exceeded"),
    "ExpiredCard": Decline("expired_card"),
    "IncorrectCvc": Decline("incorrect_cvc"),
    "ProcessingError": Decline("processing_error"),
}
_GOOD_CARDS = (
    "visa", "visa_debit", "mastercard", "mastercard_debit", "mastercard_prepaid", "amex",
    "discover", "diners", "jcb", "unionpay",
)  # fmt: skip

PAYMENT_METHODS: Mapping[str, Behaviour] = {
    **{f"pm_card_{card}": Behaviour() for card in _GOOD_CARDS},
    **{
        f"pm_card_{brand}chargeDeclined{why}": Behaviour(decline)
        for brand in ("", "visa_")
        for why, decline in _DECLINES.items()
    },
    "pm_sandbox_slow": Behaviour(slow=True),
    "pm_sandbox_flaky": Behaviour(fault="error_500", fault_count_max=2),
    "pm_sandbox_error_500": Behaviour(fault="error_500"),
    "pm_sandbox_rate_limited": Behaviour(fault="rate_limited"),
    "pm_sandbox_timeout": Behaviour(fault="timeout"),
    "pm_sandbox_timeout_after_capture": Behaviour(fault="timeout_after_capture"),
}
