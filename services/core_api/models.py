"""The Core API's requests and responses (the transaction: `services/common/transaction.py`)."""

import hashlib
import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from services.common.currencies import EXPONENTS
from services.common.transaction import (
    AMOUNT_MAX,
    PAYMENT_METHOD,
    Amount,
    Credit,
    Currency,
    PaymentMethod,
    Transaction,
)


def _whole_number(value: object) -> object:
    """Accepts `100` or `"100"` (as HTTPie sends), not `1e2`, `100.0`, `"+1"`, `true`."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a whole number in the currency's smallest unit, or digits as text")


# Up to 20 digits, at most 8 of them significant.
_AMOUNT: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": AMOUNT_MAX},
        {"type": "string", "pattern": "^0{0,12}[1-9][0-9]{0,7}$"},
    ]
}


class TokenInBody(BaseModel):
    """The only field parsed before authentication."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    token: Annotated[str, Field(max_length=8192)] | None = Field(
        default=None, description="instead of the Authorization header"
    )


class TransactionRequest(TokenInBody):
    """A request to create a transaction."""

    model_config = ConfigDict(extra="forbid")

    amount: Annotated[Amount, BeforeValidator(_whole_number), WithJsonSchema(_AMOUNT)] = Field(
        description="in the currency's smallest unit"
    )
    currency: Currency = Field(
        description="ISO 4217", json_schema_extra={"enum": [*sorted(EXPONENTS)]}
    )
    payment_method: PaymentMethod = Field(
        default="pm_card_visa",
        description="one of Stripe's test names, or the sandbox's",
        json_schema_extra={"pattern": f"^{PAYMENT_METHOD.pattern}$"},
    )

    def payment(self) -> dict[str, Any]:
        """The fields of the payment that are set."""
        return {
            name: value
            for name, value in vars(self).items()
            if name != "token" and value is not None
        }

    def fingerprint(self) -> str:
        """A hash that is equal for equal requests, also after a release adds an optional field."""
        return hashlib.sha256(json.dumps(self.payment(), sort_keys=True).encode()).hexdigest()


class Page(BaseModel):
    """Transactions, newest first."""

    transactions: list[Transaction]
    next_cursor: str | None = None


class Loyalty(BaseModel):
    """A user's points and newest credits."""

    points: int
    ledger: list[Credit]
    next_cursor: str | None = None
