"""The parameters of `/v1`: Stripe's bracket notation in a form or a query, checked as Stripe does.

Rules: https://docs.stripe.com/api/payment_intents/create, /api/metadata, /currencies
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from services.currencies import EXPONENTS
from services.psp_sandbox.errors import StripeError

AMOUNT_MAX = 99_999_999
FIELDS_MAX = 200
METADATA_KEYS_MAX = 50
METADATA_KEY_CHARACTERS_MAX = 40
METADATA_VALUE_CHARACTERS_MAX = 500
TEXT_CHARACTERS_MAX = 1000
LIMIT_DEFAULT = 10
LIMIT_MAX = 100
# What a client sent is repeated in messages, as Stripe does, but not at any length.
_ECHO_CHARACTERS_MAX = 100

_CURRENCIES = frozenset(code.lower() for code in EXPONENTS)
_METADATA = re.compile(r"metadata\[([^\[\]]+)\]")
_METHOD_TYPE = re.compile(r"payment_method_types\[[0-9]{0,2}\]")
_AUTOMATIC = "automatic_payment_methods[enabled]"
_REDIRECTS = "automatic_payment_methods[allow_redirects]"
_KNOWN = frozenset(
    {
        "amount",
        "currency",
        "confirm",
        "payment_method",
        "description",
        "return_url",
        # Both say what to do when the customer has to act; here nothing ever asks for that.
        "off_session",
        "error_on_requires_action",
        _AUTOMATIC,
        _REDIRECTS,
    }
)

Params = dict[str, str]


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """What `POST /v1/payment_intents` asks for. `fingerprint` is equal for equal parameters."""

    amount: int
    currency: str
    payment_method: str
    description: str | None
    metadata: dict[str, str]
    automatic_payment_methods: dict[str, bool | str] | None
    fingerprint: str


def decode(encoded: bytes | str) -> Params:
    """A form or a query as parameters; of a name that comes twice the last value counts.

    Raises:
        StripeError: when there are too many.
    """
    text = encoded.decode("utf-8", "replace") if isinstance(encoded, bytes) else encoded
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError:
        raise StripeError(400, f"A request may have {FIELDS_MAX} parameters.") from None


def read_payment(params: Params) -> PaymentRequest:
    """The checked parameters.

    Raises:
        StripeError: 400, naming the first parameter that is wrong.
    """
    for name in params:
        if (
            name not in _KNOWN
            and not _METADATA.fullmatch(name)
            and not _METHOD_TYPE.fullmatch(name)
        ):
            raise _wrong("parameter_unknown", f"Received unknown parameter: {_echo(name)}", name)
    amount = _integer("amount", _required(params, "amount"))
    if amount > AMOUNT_MAX:
        message = f"Amount must be no more than {AMOUNT_MAX} in the currency's smallest unit."
        raise _wrong("amount_too_large", message, "amount")
    currency = _currency(_required(params, "currency"))
    _check_confirm(params)
    return PaymentRequest(
        amount=amount,
        currency=currency,
        payment_method=_required(params, "payment_method"),
        description=_description(params),
        metadata=_metadata(params),
        automatic_payment_methods=_automatic(params),
        fingerprint=hashlib.sha256(json.dumps(sorted(params.items())).encode()).hexdigest(),
    )


def read_limit(params: Params, *, limit_max: int = LIMIT_MAX, default: int = LIMIT_DEFAULT) -> int:
    """How many objects a list is asked for.

    Raises:
        StripeError: when it is not a whole number from 1 to `limit_max`.
    """
    if "limit" not in params:
        return default
    limit = _integer("limit", params["limit"])
    if limit > limit_max:
        message = f"This value must be less than or equal to {limit_max}."
        raise _wrong("parameter_invalid_integer", message, "limit")
    return limit


def only(params: Params, *names: str) -> None:
    """Raises `StripeError` when there is a parameter besides `names`."""
    for name in params:
        if name not in names:
            raise _wrong("parameter_unknown", f"Received unknown parameter: {_echo(name)}", name)


def _wrong(code: str, message: str, param: str) -> StripeError:
    return StripeError(400, message, code=code, param=_echo(param))


def _echo(text: str) -> str:
    return text[:_ECHO_CHARACTERS_MAX]


def _required(params: Params, name: str) -> str:
    if name not in params:
        raise _wrong("parameter_missing", f"Missing required param: {name}.", name)
    if not params[name]:
        message = f"You passed an empty string for '{name}', which cannot be unset."
        raise _wrong("parameter_invalid_empty", message, name)
    return params[name]


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise _wrong("parameter_invalid_integer", f"Invalid integer: {_echo(text)}", name)
    if int(text) < 1:
        message = "This value must be greater than or equal to 1."
        raise _wrong("parameter_invalid_integer", message, name)
    return int(text)


def _currency(text: str) -> str:
    if text not in _CURRENCIES:
        hint = " Write it in lower case." if text.lower() in _CURRENCIES else ""
        message = f"Invalid currency: {_echo(text)}.{hint} Currencies are ISO 4217 codes, as usd."
        raise StripeError(400, message, param="currency")
    return text


def _boolean(params: Params, name: str) -> bool:
    text = params.get(name, "false")
    if text not in ("true", "false"):
        raise StripeError(400, f"Invalid boolean: {_echo(text)}", param=name)
    return text == "true"


def _check_confirm(params: Params) -> None:
    if not _boolean(params, "confirm"):
        message = "This sandbox charges at once or not at all: send confirm=true."
        raise StripeError(400, message, param="confirm")
    _boolean(params, "error_on_requires_action")


def _automatic(params: Params) -> dict[str, bool | str] | None:
    """The rule that code written against an older API version trips over at Stripe.

    Unless payment methods are named, those of the Dashboard count, and some of these redirect; a
    request that confirms has to exclude them, or to say where the customer comes back to.
    """
    named = [value for name, value in params.items() if _METHOD_TYPE.fullmatch(name)]
    enabled, redirects = _boolean(params, _AUTOMATIC), params.get(_REDIRECTS, "always")
    if redirects not in ("always", "never"):
        raise StripeError(400, f"Invalid {_REDIRECTS}: must be always or never", param=_REDIRECTS)
    if named and enabled:
        message = "Send automatic_payment_methods or payment_method_types, not both."
        raise _wrong("parameters_exclusive", message, "payment_method_types")
    if named:
        if set(named) != {"card"}:
            raise StripeError(400, "This sandbox knows cards only.", param="payment_method_types")
        return None
    if redirects != "never" and not params.get("return_url"):
        message = (
            "Confirming needs a `return_url` while payment methods that redirect are allowed. "
            f"To exclude them set `{_AUTOMATIC}` to `true` and `{_REDIRECTS}` to `never`."
        )
        raise StripeError(400, message, param="return_url")
    return {"enabled": True, "allow_redirects": redirects}


def _description(params: Params) -> str | None:
    text = params.get("description") or None
    if text and len(text) > TEXT_CHARACTERS_MAX:
        message = f"A description may have {TEXT_CHARACTERS_MAX} characters."
        raise StripeError(400, message, param="description")
    return text


def _metadata(params: Params) -> dict[str, str]:
    matches = ((_METADATA.fullmatch(name), value) for name, value in params.items())
    metadata = {match[1]: value for match, value in matches if match and value}
    rules: tuple[tuple[bool, str], ...] = (
        (len(metadata) > METADATA_KEYS_MAX, f"{METADATA_KEYS_MAX} keys"),
        (_longest(metadata, 0) > METADATA_KEY_CHARACTERS_MAX, "keys of 40 characters"),
        (_longest(metadata, 1) > METADATA_VALUE_CHARACTERS_MAX, "values of 500 characters"),
    )
    for broken, rule in rules:
        if broken:
            raise StripeError(400, f"Metadata may have {rule}, not more.", param="metadata")
    return metadata


def _longest(metadata: dict[str, str], part: int) -> int:
    return max((len(item[part]) for item in metadata.items()), default=0)
