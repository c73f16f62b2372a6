"""PSP implementation for Stripe's PaymentIntents API, using Stripe's library.

Connects to the local sandbox by default, or to Stripe's test mode with `PSP_URL` and a test key.
https://docs.stripe.com/api/payment_intents/create, https://docs.stripe.com/error-handling
"""

import math
import re
import ssl
from dataclasses import replace
from typing import Any

import stripe
import urllib3.exceptions

from services.common.currencies import EXPONENTS
from services.common.redaction import redactor
from services.psp_connector.bounded import BoundedSession
from services.psp_connector.psp import (
    RETRY_AFTER_SECONDS_MAX,
    Captured,
    Charge,
    Declined,
    Outcome,
    Refused,
    Transient,
)
from services.psp_connector.settings import ConnectorSettings

# PSP_API_KEY or the path of PSP_URL is wrong, which must not fail a merchant's transactions.
_MISCONFIGURED_STATUSES = frozenset({401, 403, 404})

# Statuses unrelated to this payment. 409: a request with this idempotency key is in progress.
# 424: a failure outside Stripe.
_TRANSIENT_STATUSES = _MISCONFIGURED_STATUSES | {408, 409, 424, 425, 429}

# Before the request is sent: refused or unknown address, or a certificate that cannot be verified.
_UNSENT_ERRORS = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    ssl.SSLCertVerificationError,
)

# Valid, but never the status of our confirmed charges.
_REFUSED_STATUSES = frozenset({"canceled", "requires_capture", "requires_confirmation"})

# The card was charged, or may be yet: no declined payment has these.
_PAID_STATUSES = frozenset({"succeeded", "processing", "requires_capture"})

# Stripe's decimals, for currencies where Stripe or ISO 4217 has other than two.
# https://docs.stripe.com/currencies, "Zero-decimal currencies", "Three-decimal currencies" and
# "Special cases": ISK and UGX have no decimals but are charged with two, always 00 (their first
# list still has UGX). HUF and TWD are special for payouts only.
_BY_DECIMALS = {
    0: "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF",
    2: "ISK UGX",
    3: "BHD JOD KWD OMR TND",
}
_DECIMALS = {code: decimals for decimals, codes in _BY_DECIMALS.items() for code in codes.split()}


# As in https://docs.stripe.com/error-codes and https://docs.stripe.com/declines/codes.
_CODE = re.compile(r"[a-z0-9_]{1,64}")


class AmountError(ValueError):
    """Not representable in Stripe. The message starts with a code."""


def stripe_amount(amount: int, currency: str) -> int:
    """Converts ISO 4217 minor units to Stripe's smallest unit, or raises AmountError."""
    iso_decimals = EXPONENTS.get(currency)
    decimals = _DECIMALS.get(currency, 2)
    if iso_decimals is None or (iso_decimals != 2 and currency not in _DECIMALS):
        raise AmountError(f"currency_not_supported: Stripe does not support {currency[:3]}")
    if decimals < iso_decimals:
        step = 10 ** (iso_decimals - decimals)
    else:
        step = 10 if decimals == 3 else 1  # the last digit must be 0
    if amount % step:
        raise AmountError(
            f"amount_not_representable: Stripe takes {currency} in multiples of {step}"
        )
    return int(amount * 10**decimals // 10**iso_decimals)


class StripePsp:
    """A thread-safe client; a call takes at most PSP_TIMEOUT_SECONDS."""

    def __init__(self, settings: ConnectorSettings) -> None:
        # It would keep an id in the user's home, and send it to PSP_URL.
        stripe.enable_telemetry = False
        # With STRIPE_LOG in the environment it would print past our logs, secrets included.
        stripe._util.STRIPE_LOG = None  # noqa: SLF001
        self._redacted = redactor(settings)
        self._client = stripe.StripeClient(
            settings.psp_api_key.get_secret_value(),
            base_addresses={"api": settings.psp_url},
            # The queue retries: that survives this process, and shows in the timeline.
            max_network_retries=0,
            http_client=stripe.RequestsClient(
                timeout=settings.psp_timeout_seconds,
                session=BoundedSession(
                    settings.psp_url, settings.psp_timeout_seconds, settings.concurrency + 1
                ),
            ),
        )

    def charge(self, charge: Charge) -> Outcome:
        """Creates and confirms a PaymentIntent; the idempotency key is the transaction id.

        The API key is masked in the outcome: a PSP or a proxy before it may send it back, and
        merchants see references and codes.
        """
        try:
            outcome = self._charge(charge)
        except Exception as error:  # noqa: BLE001  for unexpected JSON, also by the library
            # The PSP may have captured.
            outcome = Transient(f"unreadable response: {type(error).__name__}")
        fields = vars(outcome).items()
        texts = {name: self._redacted(value) for name, value in fields if isinstance(value, str)}
        return replace(outcome, **texts)  # type: ignore[arg-type]

    def _charge(self, charge: Charge) -> Outcome:
        try:
            intent = self._create(charge)
        except AmountError as error:
            return Refused(str(error), is_sent=False)
        except stripe.StripeError as error:
            return _failed_call(charge, error)
        return _outcome(intent) if _matches(charge, intent) else _MISMATCH

    def _create(self, charge: Charge) -> Any:
        return self._client.v1.payment_intents.create(
            {
                "amount": stripe_amount(charge.amount, charge.currency),
                "currency": charge.currency.lower(),
                "payment_method": charge.payment_method,
                "confirm": True,
                # There is no customer to redirect to a bank's page.
                "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                "metadata": {
                    "transaction_id": charge.transaction_id,
                    "request_id": charge.request_id,
                },
            },
            {
                "idempotency_key": charge.transaction_id,
                "headers": {"X-Request-Id": charge.request_id},
            },
        )

    def is_available(self) -> bool:
        """Lists a payment, which a key that may charge always can (Stripe has restricted keys)."""
        try:
            self._client.v1.payment_intents.list({"limit": 1})
        except Exception:  # noqa: BLE001  including the library's for unexpected JSON
            return False
        return True


_MISMATCH = Transient("the response does not match the request")


def _matches(charge: Charge, intent: Any) -> bool:
    """Whether no field contradicts the request, such as a captured amount."""
    if intent.status != "succeeded":
        return _is_unpaid(charge, intent)
    amount = stripe_amount(charge.amount, charge.currency)
    requested = {
        "object": "payment_intent",
        "amount": amount,
        "amount_received": amount,
        "currency": charge.currency.lower(),
    }
    return (
        bool(intent.id and isinstance(intent.id, str))
        and all(getattr(intent, name, value) == value for name, value in requested.items())
        and _is_for(charge, intent)
    )


def _is_for(charge: Charge, intent: Any) -> bool:
    """Whether the intent's metadata, if it has any, names the charge's transaction."""
    metadata = getattr(intent, "metadata", None)
    return bool(getattr(metadata, "transaction_id", charge.transaction_id) == charge.transaction_id)


def _is_unpaid(charge: Charge, intent: Any) -> bool:
    """Whether the intent may be the charge's, and received nothing."""
    return _is_for(charge, intent) and not getattr(intent, "amount_received", None)


def _outcome(intent: Any) -> Outcome:
    if intent.status == "succeeded":
        return Captured(intent.id)
    if intent.status == "processing":
        return Transient("the PSP is still processing it")
    if intent.status == "requires_action":
        return Declined("authentication_required", str(intent.id))
    if intent.status == "requires_payment_method":
        return Declined(_decline_code(getattr(intent, "last_payment_error", None)), str(intent.id))
    if intent.status in _REFUSED_STATUSES:
        return Refused(f"unexpected status {intent.status}")
    return _MISMATCH


def _decline_code(error: Any) -> str:
    """The card network's reason, else Stripe's error code, else `card_declined`."""
    return _code(error, "decline_code") or _code(error, "code") or "card_declined"


def _code(error: Any, name: str) -> str:
    """An attribute that is a code; empty for any other text, which merchants must not see."""
    code = getattr(error, name, None)
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _failed_call(charge: Charge, error: stripe.StripeError) -> Outcome:
    status, kind = error.http_status, getattr(error.error, "type", None)
    if status is None:
        return Transient("no response", is_unseen=_is_unsent(error))
    # Below 400, or without Stripe's error object: not from the PSP itself but perhaps from a proxy.
    # The PSP may have captured.
    if status < 400 or status >= 500 or status in _TRANSIENT_STATUSES or not kind:
        is_unseen = status in _MISCONFIGURED_STATUSES
        return Transient(f"HTTP {status}", _retry_after_seconds(error), is_unseen)
    if kind == "idempotency_error":
        # An earlier version sent other parameters under this key, and the PSP may have captured.
        return Transient(f"HTTP {status} {kind}")
    if kind == "card_error":
        intent = getattr(error.error, "payment_intent", None)
        if not _is_unpaid(charge, intent) or getattr(intent, "status", None) in _PAID_STATUSES:
            return _MISMATCH
        return Declined(_decline_code(error.error), str(getattr(intent, "id", "")))
    return Refused(
        f"HTTP {status} {_code(error.error, 'code') or _code(error.error, 'type') or 'error'}"
    )


def _is_unsent(error: BaseException | None) -> bool:
    while error and not isinstance(error, _UNSENT_ERRORS):
        error = error.__cause__ or error.__context__
    return error is not None


def _retry_after_seconds(error: stripe.StripeError) -> float:
    headers: Any = error.headers or {}
    try:
        seconds = float(headers.get("retry-after", 0))
    except ValueError:  # a date (RFC 9110, 10.2.3), which Stripe does not send
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX) if math.isfinite(seconds) else 0.0
