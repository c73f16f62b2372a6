"""Stripe's API objects.

Shapes: https://docs.stripe.com/api/payment_intents/object, /api/balance
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.psp_sandbox.errors import doc_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.psp_sandbox.behaviours import Decline
    from services.psp_sandbox.params import PaymentRequest

PaymentIntent = dict[str, Any]


def payment_intent(
    request: PaymentRequest, decline: Decline | None, *, token: str, created_seconds: int
) -> PaymentIntent:
    """Creates a confirmed PaymentIntent. Its ids are derived from the random `token`."""
    charge = f"ch_{token}"
    return {
        "id": f"pi_{token}",
        "object": "payment_intent",
        "amount": request.amount,
        "amount_capturable": 0,
        "amount_received": 0 if decline else request.amount,
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "capture_method": "automatic_async",
        "confirmation_method": "automatic",
        "created": created_seconds,
        "currency": request.currency,
        "last_payment_error": decline and _payment_error(decline, charge, request.payment_method),
        "latest_charge": charge,
        "livemode": False,
        "metadata": request.metadata,
        "payment_method": None if decline else request.payment_method,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "status": "requires_payment_method" if decline else "succeeded",
    }


def _payment_error(decline: Decline, charge: str, payment_method: str) -> dict[str, Any]:
    error: dict[str, Any] = {
        "type": "card_error",
        "code": decline.code,
        "message": decline.message,
        "doc_url": doc_url(decline.code),
        "charge": charge,
        "payment_method": {"id": payment_method, "object": "payment_method", "type": "card"},
    }
    if decline.decline_code:
        error["decline_code"] = decline.decline_code
    if decline.param:
        error["param"] = decline.param
    return error


def response(intent: PaymentIntent) -> tuple[int, dict[str, Any]]:
    """Status and body of the response to the request that created `intent`, replays included."""
    error = intent["last_payment_error"]
    if error is None:
        return 200, intent
    return 402, {"error": {**error, "payment_intent": intent}}


def balance(captured: Mapping[str, int]) -> dict[str, Any]:
    """The balance: captured amounts by currency, available at once, without fees."""
    funds = [
        {"amount": amount, "currency": currency, "source_types": {"card": amount}}
        for currency, amount in (captured or {"usd": 0}).items()
    ]
    return {"object": "balance", "available": funds, "livemode": False, "pending": []}
