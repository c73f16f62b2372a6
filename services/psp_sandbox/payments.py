"""A payment: the parameters of `POST /v1/payment_intents`, and the PaymentIntent made of them.

The parameters are a form in Stripe's bracket notation. Only those of an immediate charge are
supported; like Stripe, others are rejected.
Rules: https://docs.stripe.com/api/payment_intents/create, /api/metadata, /currencies
Shapes: https://docs.stripe.com/api/payment_intents/object
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from services.common.currencies import EXPONENTS
from services.psp_sandbox.behaviours import Decline
from services.psp_sandbox.errors import StripeError

AMOUNT_MAX = 99_999_999

# ISO 4217 without the currencies of other than two decimals that Stripe does not support.
_CURRENCIES = {code.lower() for code in EXPONENTS} - {"clf", "iqd", "lyd", "uyi", "uyw"}
# Amounts must be a multiple of this: https://docs.stripe.com/currencies, "Special cases" and
# "Three-decimal currencies".
_STEPS = {"isk": 100, "ugx": 100, **dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), 10)}
_METADATA = re.compile(r"metadata\[([^\[\]]+)\]")
# Without `never`, Stripe requires a return URL for payment methods that redirect.
_FIXED = {
    "confirm": "true",
    "automatic_payment_methods[enabled]": "true",
    "automatic_payment_methods[allow_redirects]": "never",
}
_KNOWN = {"amount", "currency", "payment_method", *_FIXED}

Params = dict[str, str]
PaymentIntent = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """Validated parameters. `fingerprint` is equal for equal parameters."""

    amount: int
    currency: str
    payment_method: str
    metadata: dict[str, str]
    fingerprint: str


def read_payment(form: bytes) -> PaymentRequest:
    """Parses and validates a form; StripeError 400 names the first invalid parameter."""
    params = dict(parse_qsl(form.decode("utf-8", "replace"), keep_blank_values=True))
    for name in params:
        if name not in _KNOWN and not _METADATA.fullmatch(name):
            message = f"Received unknown parameter: {name}"
            raise StripeError(400, message, code="parameter_unknown", param=name)
    currency = _required(params, "currency")
    if currency not in _CURRENCIES:
        message = f"Invalid currency: {currency}. Use an ISO 4217 code in lower case."
        raise StripeError(400, message, param="currency")
    amount = _amount(_required(params, "amount"), currency)
    for name, value in _FIXED.items():
        if params.get(name) != value:
            message = f"This sandbox only supports immediate charges: send {name}={value}."
            raise StripeError(400, message, param=name)
    return PaymentRequest(
        amount=amount,
        currency=currency,
        payment_method=_required(params, "payment_method"),
        metadata={m[1]: params[name] for name in params if (m := _METADATA.fullmatch(name))},
        fingerprint=hashlib.sha256(json.dumps(sorted(params.items())).encode()).hexdigest(),
    )


def _required(params: Params, name: str) -> str:
    if value := params.get(name):
        return value
    raise StripeError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)


def _amount(text: str, currency: str) -> int:
    step = _STEPS.get(currency, 1)
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        code, rule = "parameter_invalid_integer", "must be a whole number above 0"
    elif int(text) > AMOUNT_MAX:
        code, rule = "amount_too_large", f"must be no more than {AMOUNT_MAX}"
    elif int(text) % step:
        code, rule = "invalid_charge_amount", f"in {currency} must be evenly divisible by {step}"
    else:
        return int(text)
    raise StripeError(400, f"Invalid amount: it {rule}.", code=code, param="amount")


def payment_intent(
    request: PaymentRequest, decline: Decline | None, *, token: str, created_seconds: int
) -> PaymentIntent:
    """Creates a confirmed PaymentIntent. Its ids are derived from the random `token`."""
    charge = f"ch_{token}"
    return {
        "id": f"pi_{token}",
        "object": "payment_intent",
        "amount": request.amount,
        "amount_received": 0 if decline else request.amount,
        "created": created_seconds,
        "currency": request.currency,
        "last_payment_error": decline and _payment_error(decline, charge, request.payment_method),
        "latest_charge": charge,
        "livemode": False,
        "metadata": request.metadata,
        "payment_method": None if decline else request.payment_method,
        "payment_method_types": ["card"],
        "status": "requires_payment_method" if decline else "succeeded",
    }


def _payment_error(decline: Decline, charge: str, payment_method: str) -> dict[str, Any]:
    error: dict[str, Any] = {
        "type": "card_error",
        "code": decline.code,
        "message": "Your card was declined.",
        "charge": charge,
        "payment_method": {"id": payment_method, "object": "payment_method", "type": "card"},
    }
    return error | ({"decline_code": decline.decline_code} if decline.decline_code else {})


def response(intent: PaymentIntent) -> tuple[int, dict[str, Any]]:
    """Status and body of the response to the request that created `intent`, replays included."""
    error = intent["last_payment_error"]
    if error is None:
        return 200, intent
    return 402, {"error": {**error, "payment_intent": intent}}
