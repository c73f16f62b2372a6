"""Resources: the supported part of Stripe's API, and `/_sandbox` for tests."""

import re
import secrets
import time

import falcon
from structlog.contextvars import bind_contextvars

from services.common.web import read_json
from services.psp_sandbox.behaviours import DECLINED, PAYMENT_METHODS, Behaviour
from services.psp_sandbox.errors import StripeError
from services.psp_sandbox.faults import FaultInjector, Faults, inject
from services.psp_sandbox.payments import (
    PaymentIntent,
    PaymentRequest,
    payment_intent,
    read_payment,
    response,
)
from services.psp_sandbox.store import Store
from services.psp_sandbox.waiting import Waiting

KEY_CHARACTERS_MAX = 255  # https://docs.stripe.com/api/idempotent_requests
LIMIT_DEFAULT = 100
# Some 20 MB of JSON.
LIMIT_MAX = 50_000
# Ids of the platform; other metadata is not logged.
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class PaymentIntents:
    """`/v1/payment_intents`: POST charges, GET lists the newest."""

    def __init__(self, store: Store, waiting: Waiting, injector: FaultInjector) -> None:
        self._store = store
        self._waiting = waiting
        self._injector = injector
        self._in_progress: dict[str, falcon.Request] = {}
        """The request in progress of each idempotency key."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        authenticate(req)
        limit = req.get_param_as_int("limit", min_value=1, max_value=100, default=10)
        rows = self._store.newest(limit + 1)
        resp.media = {
            "object": "list",
            "url": "/v1/payment_intents",
            "has_more": len(rows) > limit,
            "data": [intent for _key, _requests, intent in rows[:limit]],
        }

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        authenticate(req)
        # Without a key, each request creates a payment.
        key = _idempotency_key(req) or f"none-{secrets.token_hex(12)}"
        payment = read_payment(req.context.body)
        if _ID.fullmatch(transaction_id := payment.metadata.get("transaction_id", "")):
            bind_contextvars(transaction_id=transaction_id)
        # `setdefault` is atomic.
        is_first = self._in_progress.setdefault(key, req) is req
        try:
            fingerprint, intent = self._store.note(key, payment.fingerprint)
            if fingerprint != payment.fingerprint:
                message = f"The idempotency key '{key}' was first used with other parameters."
                raise StripeError(400, message, type_="idempotency_error")
            if not is_first:
                message = f"Another request with the idempotency key '{key}' is in progress."
                raise StripeError(409, message, code="idempotency_key_in_use")
            replayed = intent is not None
            if intent is None:
                intent = self._charge(req, payment, key)
        finally:
            if is_first:
                del self._in_progress[key]
        status, resp.media = response(intent)
        resp.status = falcon.code_to_http_status(status)
        if replayed:
            resp.set_header("Idempotent-Replayed", "true")
        bind_contextvars(payment_intent=intent["id"], replayed=replayed)

    def _charge(self, req: falcon.Request, payment: PaymentRequest, key: str) -> PaymentIntent:
        """Returns the payment for the key, which another process may have created."""
        behaviour = PAYMENT_METHODS.get(payment.payment_method)
        if behaviour is None:
            message = f"No such PaymentMethod: '{payment.payment_method}'"
            raise StripeError(400, message, code="resource_missing", param="payment_method")
        if behaviour.slow:
            self._waiting.wait(req.env, self._waiting.slow_seconds)
        self._fail(req, behaviour, key)
        decline = DECLINED if self._injector.faults.decline else behaviour.decline
        intent = payment_intent(
            payment, decline, token=secrets.token_hex(12), created_seconds=int(time.time())
        )
        return self._store.add(intent, key, payment.fingerprint)

    def _fail(self, req: falcon.Request, behaviour: Behaviour, key: str) -> None:
        """Raises the payment method's fault, or marks the response to be lost."""
        kind, count_max = behaviour.fault, behaviour.fault_count_max
        if kind and (count_max is None or self._store.note_fault(key) <= count_max):
            inject(req, kind)


class RecordedPayments:
    """`/_sandbox/payment_intents`: lists recorded payments, for tests and the console."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.unlogged = True  # the console reads it every second
        limit = req.get_param_as_int(
            "limit", min_value=1, max_value=LIMIT_MAX, default=LIMIT_DEFAULT
        )
        resp.media = {
            "summary": self._store.summary(),
            "data": [
                {"idempotency_key": key, "requests": requests, "payment_intent": intent}
                for key, requests, intent in self._store.newest(limit)
            ],
        }


class FaultsResource:
    """`/_sandbox/faults`: configures fault injection."""

    def __init__(self, injector: FaultInjector) -> None:
        self._injector = injector

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.unlogged = True
        resp.media = self._injector.state()

    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._injector.set(read_json(req, Faults))
        resp.media = self._injector.state()

    def on_delete(self, _req: falcon.Request, resp: falcon.Response) -> None:
        self._injector.set(Faults())
        resp.status = falcon.HTTP_204


def authenticate(req: falcon.Request) -> None:
    """Raises `StripeError` 401 unless the request has a test key."""
    scheme, _, key = (req.auth or "").partition(" ")
    if scheme.lower() == "bearer" and key.startswith(("sk_test_", "rk_test_")):
        return
    if key.startswith(("sk_live_", "rk_live_")):
        raise StripeError(
            401,
            "This looks like a live key; the sandbox needs one that starts with sk_test_. The key "
            "was not used or stored, but check why it was sent here.",
        )
    raise StripeError(401, "Send an API key: 'Authorization: Bearer sk_test_...'.")


def _idempotency_key(req: falcon.Request) -> str:
    key = req.get_header("Idempotency-Key") or ""
    if len(key) > KEY_CHARACTERS_MAX:
        message = f"An idempotency key may have at most {KEY_CHARACTERS_MAX} characters."
        raise StripeError(400, message, type_="idempotency_error")
    return key
