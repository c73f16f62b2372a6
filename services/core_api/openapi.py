"""The Core API's own description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from services.common import openapi
from services.core_api.resources import IDEMPOTENCY_KEY
from services.core_api.transactions import PAGE_MAX, TransactionRequest


class Event(BaseModel):
    """Something that happened to a transaction."""

    event: str
    at: str = Field(description="RFC 3339, UTC, milliseconds")


class Transaction(BaseModel):
    """A transaction as it stands."""

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
    timeline: list[Event]


class Page(BaseModel):
    """Transactions, newest first."""

    transactions: list[Transaction]
    next_cursor: str | None = None


class Credit(BaseModel):
    """Points for one captured transaction."""

    transaction_id: str
    points: int
    amount: int
    currency: str
    at: str


class Loyalty(BaseModel):
    """A user's points, and the newest credits they come from."""

    points: int
    ledger: list[Credit]
    next_cursor: str | None = None


_AUTH = {
    "e401": "No token, or a bad or expired one.",
    "e403": "The user is not enabled.",
    "e503": "Redis is away; see Retry-After.",
}
_PAGING: list[dict[str, Any]] = [
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": 20},
    },
    {"name": "cursor", "in": "query", "schema": {"type": "string"}},
]
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}]
_POST: dict[str, Any] = {
    "summary": "Ask for a transaction; it is queued, and charged soon after",
    # Without the header the token may come in the body.
    "security": [*_SECURITY, {}],
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY}$"},
            "description": "Makes the request safe to repeat for 24 hours.",
        }
    ],
    "requestBody": openapi.body(TransactionRequest),
    "responses": {
        "202": openapi.answer("Accepted; Location leads to it.", Transaction),
        **openapi.errors(
            e400="Not JSON, a token in two places, or a wrong Idempotency-Key.",
            e409="The key came before, but its answer cannot be read.",
            e413="Over 16 KiB.",
            e415="Not declared as JSON.",
            e422="A field is wrong, or the key came before with another request.",
            **_AUTH,
        ),
    },
}


def _get(summary: str, model: type[BaseModel], **more: Any) -> dict[str, Any]:
    wrong = {} if "parameters" not in more else {"e422": "A parameter is wrong."}
    responses = {"200": openapi.answer("As asked.", model), **openapi.errors(**_AUTH, **wrong)}
    return {"summary": summary, "security": _SECURITY, "responses": responses, **more}


_ONE = _get("One of the caller's transactions", Transaction)
_ONE["responses"] |= openapi.errors(e404="There is no such transaction of the caller's.")

DOCUMENT = openapi.document(
    "Core API",
    "Takes transactions, queues them, and tells how they stand.",
    {
        "/": {"post": _POST, "get": _get("The caller's transactions", Page, parameters=_PAGING)},
        "/transaction": {"post": {**_POST, "deprecated": True}},
        "/loyalty": {"get": _get("The caller's loyalty points", Loyalty, parameters=_PAGING)},
        "/{transaction_id}": {
            "parameters": [
                {
                    "name": "transaction_id",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string", "format": "uuid"},
                }
            ],
            "get": _ONE,
        },
    },
    [TransactionRequest, Transaction, Page, Loyalty],
    security={"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
)
