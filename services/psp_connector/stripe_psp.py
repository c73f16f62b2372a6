"""Stripe's PaymentIntents API as a PSP, through Stripe's own library.

With `PSP_URL` and a test key it is Stripe's test mode; by default the local sandbox.
https://docs.stripe.com/api/payment_intents/create, https://docs.stripe.com/error-handling
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import stripe

from services.common.currencies import EXPONENTS
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

if TYPE_CHECKING:
    from services.psp_connector.settings import ConnectorSettings

# Statuses that say nothing about this request, only about now. 409: the same key is being worked
# on. 401 and 403: the key is wrong, which is ours to mend and no merchant's loss.
_TRANSIENT_STATUSES = frozenset({401, 403, 408, 409, 425, 429})

# Stripe's decimals for the currencies where it or ISO 4217 has other than two.
# https://docs.stripe.com/currencies, "Zero-decimal currencies", "Three-decimal currencies" and
# "Special cases": ISK and UGX have no decimals, but are charged with two, always 00 (that UGX is in
# the first list too is older). HUF and TWD are special for payouts only.
_BY_DECIMALS = {
    0: "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF",
    2: "ISK UGX",
    3: "BHD JOD KWD OMR TND",
}
_DECIMALS = {code: decimals for decimals, codes in _BY_DECIMALS.items() for code in codes.split()}


class AmountError(ValueError):
    """Stripe has no amount for this much of this currency. The message starts with a code."""


def stripe_amount(amount: int, currency: str) -> int:
    """The amount in Stripe's smallest unit, for one in ISO 4217's.

    Raises:
        AmountError: Stripe does not take the currency, or could only be asked for another amount.
    """
    iso_decimals = EXPONENTS.get(currency)
    decimals = _DECIMALS.get(currency, 2)
    if iso_decimals is None or (iso_decimals != 2 and currency not in _DECIMALS):
        raise AmountError(f"currency_not_supported: Stripe takes no {currency[:3]}")
    if decimals < iso_decimals:
        step = 10 ** (iso_decimals - decimals)
    else:
        step = 10 if decimals == 3 else 1  # the last digit has to be 0
    if amount % step:
        raise AmountError(
            f"amount_not_representable: Stripe takes {currency} in multiples of {step}"
        )
    return int(amount * 10**decimals // 10**iso_decimals)


class StripePsp:
    """One client for all threads; a call takes PSP_TIMEOUT_SECONDS at the most."""

    def __init__(self, settings: ConnectorSettings) -> None:
        self._client = stripe.StripeClient(
            settings.psp_api_key.get_secret_value(),
            base_addresses={"api": settings.psp_url},
            # Retries are the queue's: they survive this process, and show in the timeline.
            max_network_retries=0,
            http_client=stripe.RequestsClient(
                timeout=settings.psp_timeout_seconds,
                session=BoundedSession(
                    settings.psp_url, settings.psp_timeout_seconds, settings.concurrency + 1
                ),
            ),
        )

    def charge(self, charge: Charge) -> Outcome:
        """Creates and confirms a PaymentIntent under the transaction's id as idempotency key."""
        try:
            return _outcome(self._create(charge))
        except AmountError as error:
            return Refused(str(error))
        except stripe.CardError as error:
            return Declined(_decline_code(error.error), _id_in(error.error))
        except stripe.StripeError as error:
            return _failed_call(error)
        except Exception as error:  # noqa: BLE001  the library's, for JSON that is not Stripe's
            # It is unknown whether the PSP captured.
            return Transient(f"unreadable answer: {type(error).__name__}")

    def _create(self, charge: Charge) -> Any:
        return self._client.v1.payment_intents.create(
            {
                "amount": stripe_amount(charge.amount, charge.currency),
                "currency": charge.currency.lower(),
                "payment_method": charge.payment_method,
                "confirm": True,
                # Nobody is there to be redirected to a bank's page.
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

    def answers(self) -> bool:
        """Asks for the account's balance, the cheapest call that needs a good key."""
        try:
            self._client.v1.balance.retrieve()
        except Exception:  # noqa: BLE001  also the library's, for JSON that is not Stripe's
            return False
        return True


def _outcome(intent: Any) -> Outcome:
    if intent.status == "succeeded":
        return Captured(intent.id)
    if intent.status == "processing":
        return Transient("the PSP is still processing it")
    if intent.status == "requires_action":
        return Declined("authentication_required", intent.id)
    if intent.status == "requires_payment_method":
        return Declined(_decline_code(getattr(intent, "last_payment_error", None)), intent.id)
    return Refused(f"unexpected status {intent.status}")


def _decline_code(error: Any) -> str:
    """The card network's reason, else Stripe's code for the error, else what all declines are."""
    reason = getattr(error, "decline_code", None) or getattr(error, "code", None)
    return str(reason or "card_declined")


def _id_in(error: Any) -> str:
    return str(getattr(getattr(error, "payment_intent", None), "id", ""))


def _failed_call(error: stripe.StripeError) -> Outcome:
    status = error.http_status
    if status is None:
        return Transient("no answer")
    # Below 400: an answer that is not the PSP's own, which leaves open whether it captured.
    if status < 400 or status >= 500 or status in _TRANSIENT_STATUSES:
        return Transient(f"HTTP {status}", _retry_after_seconds(error))
    return Refused(f"HTTP {status} {error.code or ''}".strip())


def _retry_after_seconds(error: stripe.StripeError) -> float:
    headers: Any = error.headers or {}
    try:
        seconds = float(headers.get("retry-after", 0))
    except ValueError:  # a date (RFC 9110, 10.2.3), which Stripe does not send
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX) if math.isfinite(seconds) else 0.0
