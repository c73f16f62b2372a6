"""Shared by the sandbox's tests: a client with Stripe's form encoding."""

from typing import Any
from urllib.parse import urlencode

from falcon.testing import Result, TestClient

from services.psp_sandbox.app import create_app
from services.psp_sandbox.settings import SandboxSettings
from services.psp_sandbox.store import Store
from services.psp_sandbox.waiting import Waiting

AUTH = {"Authorization": "Bearer sk_test_tests"}
FORM = {**AUTH, "Content-Type": "application/x-www-form-urlencoded"}
PAYMENT = {
    "amount": "1250",
    "currency": "usd",
    "confirm": "true",
    "payment_method": "pm_card_visa",
    "automatic_payment_methods[enabled]": "true",
    "automatic_payment_methods[allow_redirects]": "never",
    "metadata[transaction_id]": "t-1",
}
SETTINGS = SandboxSettings(http_port=1, allowed_hosts="falconframework.org")


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Sandbox:
    """The sandbox in this process, without real delays."""

    def __init__(self, store: Store, waiting: Waiting | None = None) -> None:
        waiting = waiting or Waiting(hold_seconds=0.01, slow_seconds=0.01)
        self.store = store
        self.http = TestClient(create_app(SETTINGS, store=store, waiting=waiting))

    def pay(self, key: str = "", /, **changes: str | None) -> Result:
        """Posts `PAYMENT` with changes; None omits a parameter."""
        form = {**PAYMENT, **changes}
        sent = {name: value for name, value in form.items() if value is not None}
        return self.post(urlencode(sent), {"Idempotency-Key": key} if key else {})

    def post(self, body: str | bytes, headers: dict[str, str] | None = None) -> Result:
        headers = FORM | (headers or {})
        return self.http.simulate_post("/v1/payment_intents", body=body, headers=headers)

    def get(self, path: str, **query: str) -> Result:
        return self.http.simulate_get(path, params=query, headers=AUTH)

    def recorded(self, **query: str) -> Any:
        return self.get("/_sandbox/payment_intents", **query).json

    def faults(self, **faults: object) -> Result:
        return self.http.simulate_put("/_sandbox/faults", json=faults)
