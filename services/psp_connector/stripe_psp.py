"""The PSP behind Stripe's PaymentIntents API, through Stripe's own library.

With `PSP_URL` and a test key it is Stripe's test mode; by default the local sandbox.
https://docs.stripe.com/api/payment_intents/create, https://docs.stripe.com/error-handling
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import stripe

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
                session=BoundedSession(settings.psp_timeout_seconds, settings.concurrency + 1),
            ),
        )

    def charge(self, charge: Charge) -> Outcome:
        """Creates and confirms a PaymentIntent under the transaction's id as idempotency key."""
        try:
            intent = self._client.v1.payment_intents.create(
                {
                    "amount": charge.amount,
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
        except stripe.CardError as error:
            return _declined(error)
        except stripe.StripeError as error:
            return _failed_call(error)
        return _outcome(intent)

    def answers(self) -> bool:
        """Asks for the account's balance, the cheapest call that needs a good key."""
        try:
            self._client.v1.balance.retrieve()
        except stripe.StripeError:
            return False
        return True


def _outcome(intent: Any) -> Outcome:
    if intent.status == "succeeded":
        return Captured(intent.id)
    if intent.status == "processing":
        return Transient("the PSP is still processing it")
    if intent.status == "requires_action":
        return Declined("authentication_required", intent.id)
    return Refused(f"unexpected status {intent.status}")


def _declined(error: stripe.CardError) -> Declined:
    body: Any = error.json_body or {}
    intent = body.get("error", {}).get("payment_intent") or {}
    details: Any = error.error
    code = getattr(details, "decline_code", None) or error.code or "card_declined"
    return Declined(str(code), str(intent.get("id", "")))


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
