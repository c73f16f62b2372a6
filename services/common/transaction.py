"""The transaction: its fields are defined here, for the record in Redis, the response and OpenAPI.

A new field needs a default, because records without it are kept for months.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import from_json

from services.common.clock import rfc3339
from services.common.currencies import EXPONENTS

AMOUNT_MAX = 99_999_999
PAYMENT_METHOD = re.compile(r"pm_[A-Za-z0-9_]{1,64}")
_DIGITS = re.compile(r"0|[1-9][0-9]*")
FINAL = frozenset({"captured", "declined", "failed"})


def _currency(value: str) -> str:
    if value not in EXPONENTS:
        raise ValueError("must be an ISO 4217 code in force, in upper case, such as USD")
    return value


def _payment_method(value: str) -> str:
    # Not `Field(pattern=…)`, for a readable error message.
    if not PAYMENT_METHOD.fullmatch(value):
        raise ValueError("must be one of Stripe's test names, such as pm_card_visa")
    return value


def _number(value: object) -> object:
    # pydantic also reads " 7", "07", "7.0" and "7_000".
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("must be digits without leading zeros")
    return value


UserId = Annotated[int, Field(ge=0, lt=10**15), BeforeValidator(_number)]
Amount = Annotated[
    int,
    Field(ge=1, le=AMOUNT_MAX, description="in the currency's smallest unit"),
    BeforeValidator(_number),
]
Currency = Annotated[str, AfterValidator(_currency)]
PaymentMethod = Annotated[str, AfterValidator(_payment_method)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    def to_json(self) -> str:
        """The JSON form, without fields that are not set."""
        return self.model_dump_json(exclude_none=True)


class Event(_Model):
    """An event of a transaction."""

    event: str
    at: str = Field(description="RFC 3339, UTC, milliseconds")
    attempt: int | None = None
    reason: str | None = None
    next_attempt_at: str | None = None

    @classmethod
    def of(cls, event: str, at_ms: int, **details: Any) -> Self:
        """An event at a time in milliseconds since the epoch."""
        return cls(event=event, at=rfc3339(at_ms), **details)


def _timeline(value: object) -> object:
    return from_json(f"[{value}]") if isinstance(value, str) else value


class Transaction(_Model):
    """A transaction."""

    # A record is a hash of these fields, as text. It also has `request_id`, `entry` (its latest
    # queue entry), `psp` and `attempted_at` (where and when it was first attempted; missing and ''
    # if no PSP has seen any attempt) and, after a replay with `--not-captured`, `not_captured_at`.

    id: str
    user_id: int
    amount: int = Field(description="in the currency's smallest unit")
    currency: str
    payment_method: str
    status: Literal["queued", "processing", "captured", "declined", "failed"]
    created_at: str
    updated_at: str
    attempts: int
    psp_reference: str | None = None
    decline_code: str | None = None
    loyalty_points: int | None = None
    # A record has it as a comma-separated list, so that a script can append an event.
    timeline: Annotated[list[Event], BeforeValidator(_timeline)]


class Credit(_Model):
    """Loyalty points for a captured transaction."""

    transaction_id: str
    points: int
    amount: int
    currency: str
    at: str
