"""The Core API's OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.common import openapi
from services.common.transaction import Transaction
from services.core_api.models import Loyalty, Page, TransactionRequest
from services.core_api.resources import IDEMPOTENCY_KEY
from services.core_api.transactions import PAGE_MAX

if TYPE_CHECKING:
    from pydantic import BaseModel

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
