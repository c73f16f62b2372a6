"""The interface to a Payment Service Provider: one call with four possible outcomes."""

import re
from dataclasses import dataclass
from typing import Protocol

# Longer Retry-After values are cut to this.
RETRY_AFTER_SECONDS_MAX = 3600.0

# Stripe and the sandbox keep an idempotency key for 24 hours after its first use. Later, the same
# request would charge a second time if the first response was lost.
# https://docs.stripe.com/api/idempotent_requests
IDEMPOTENCY_KEY_HOURS = 23

# Stripe's ids have at most 255 characters.
_CHARACTERS_MAX = 255


def text(value: object) -> str:
    """Converts a value from the PSP, which may be anything, to short printable ASCII."""
    return re.sub("[^ -~]", "?", str(value)[:_CHARACTERS_MAX])


@dataclass(frozen=True)
class Charge:
    """A charge request. `transaction_id` is also the idempotency key: charged at most once."""

    transaction_id: str
    request_id: str
    amount: int
    currency: str
    payment_method: str


@dataclass(frozen=True)
class Captured:
    """The payment was captured."""

    reference: str


@dataclass(frozen=True)
class Declined:
    """The card was declined; final."""

    code: str
    reference: str = ""


@dataclass(frozen=True)
class Refused:
    """The request is invalid for the PSP; permanent."""

    reason: str
    is_sent: bool = True
    """Whether the request was sent and the PSP rejected it."""


@dataclass(frozen=True)
class Transient:
    """No definite response: worth another attempt."""

    reason: str
    retry_after_seconds: float = 0.0
    is_unseen: bool = False
    """Whether the PSP has certainly not seen the payment, for example if it cannot be reached."""


Outcome = Captured | Declined | Refused | Transient


class PSP(Protocol):
    """A Payment Service Provider. Neither method raises."""

    def charge(self, charge: Charge) -> Outcome:
        """Charges the payment; idempotent by transaction id."""

    def is_available(self) -> bool:
        """Whether the PSP is available; charges nothing."""
