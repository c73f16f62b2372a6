"""The Core API's OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from services.common import openapi
from services.core_api.resources import IDEMPOTENCY_KEY
from services.core_api.transactions import PAGE_MAX, TransactionRequest


class Event(BaseModel):
    """An event of a transaction."""

    event: str
    at: str = Field(description="RFC 3339, UTC, milliseconds")


class Transaction(BaseModel):
    """A transaction."""

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
    """Loyalty points for a captured transaction."""

    transaction_id: str
    points: int
    amount: int
    currency: str
    at: str


class Loyalty(BaseModel):
    """A user's points and newest credits."""

    points: int
    ledger: list[Credit]
    next_cursor: str | None = None


_AUTH = {
    "e401": "Missing, invalid or expired token.",
    "e403": "The user is not enabled.",
    "e503": "Redis is unavailable; see Retry-After.",
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
    "summary": "Create a transaction; it is queued and charged asynchronously",
    # Without the header, the body may contain the token.
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
        "202": openapi.response("Accepted; see Location.", Transaction),
        **openapi.errors(
            e400="Not JSON, a token in both header and body, or an invalid Idempotency-Key.",
            e409="The key was used before, but its stored response is unreadable.",
            e413="Over 16 KiB.",
            e415="Content-Type is not JSON.",
            e422="Invalid field, or the key was used with another request.",
            **_AUTH,
        ),
    },
}


def _get(summary: str, model: type[BaseModel], **more: Any) -> dict[str, Any]:
    invalid = {} if "parameters" not in more else {"e422": "Invalid parameter."}
    responses = {"200": openapi.response("OK.", model), **openapi.errors(**_AUTH, **invalid)}
    return {"summary": summary, "security": _SECURITY, "responses": responses, **more}


_ONE = _get("One of the caller's transactions", Transaction)
_ONE["responses"] |= openapi.errors(e404="The caller has no such transaction.")

DOCUMENT = openapi.document(
    "Core API",
    "Accepts transactions, queues them and reports their status.",
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
