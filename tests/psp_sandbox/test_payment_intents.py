"""Stripe's paths: shapes, declines, checks of parameters and keys, lists, the balance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.psp_sandbox.sandbox import AUTH, PAYMENT

if TYPE_CHECKING:
    from tests.psp_sandbox.sandbox import Sandbox


@pytest.mark.parametrize(
    "method", ["pm_card_visa", "pm_card_mastercard", "pm_card_amex", "pm_card_discover"]
)
def test_captures(sandbox: Sandbox, method: str) -> None:
    """A good card is captured at once, and the payment is recorded."""
    made = sandbox.pay(payment_method=method)
    intent = made.json
    assert made.status_code == 200
    assert (intent["object"], intent["status"]) == ("payment_intent", "succeeded")
    assert (intent["amount"], intent["amount_received"], intent["currency"]) == (1250, 1250, "usd")
    assert intent["metadata"] == {"transaction_id": "t-1"}
    assert [row["payment_intent"] for row in sandbox.shown()["data"]] == [intent]


@pytest.mark.parametrize(
    ("method", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("pm_card_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
    ],
)
def test_declines(sandbox: Sandbox, method: str, code: str, decline_code: str | None) -> None:
    """A refused card is a 402 with Stripe's codes and the payment, of which nothing was taken."""
    result = sandbox.pay(payment_method=method)
    error = result.json["error"]
    assert result.status_code == 402
    assert ("card_error", code) == (error["type"], error["code"])
    assert decline_code == error.get("decline_code")
    intent = error["payment_intent"]
    assert (intent["status"], intent["amount_received"]) == ("requires_payment_method", 0)
    assert code == intent["last_payment_error"]["code"]


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"amount": "12.5"}, "parameter_invalid_integer", "amount"),
        ({"amount": "1e3"}, "parameter_invalid_integer", "amount"),
        ({"amount": "\u0661\u0662"}, "parameter_invalid_integer", "amount"),
        ({"amount": "0"}, "parameter_invalid_integer", "amount"),
        ({"amount": "-5"}, "parameter_invalid_integer", "amount"),
        ({"amount": "9" * 5000}, "parameter_invalid_integer", "amount"),
        ({"amount": "100000000"}, "amount_too_large", "amount"),
        ({"amount": ""}, "parameter_invalid_empty", "amount"),
        ({"amount": None}, "parameter_missing", "amount"),
        ({"currency": None}, "parameter_missing", "currency"),
        ({"currency": "xyz"}, None, "currency"),
        ({"currency": "USD"}, None, "currency"),
        ({"currency": "iqd"}, None, "currency"),
        (
            {"currency": "isk", "amount": "150"},
            "invalid_charge_amount_no_decimal_compatible",
            "amount",
        ),
        ({"currency": "kwd", "amount": "5124"}, "invalid_charge_amount", "amount"),
        ({"confirm": None}, None, "confirm"),
        ({"confirm": "1"}, None, "confirm"),
        ({"payment_method": None}, "parameter_missing", "payment_method"),
        ({"payment_method": "pm_unknown"}, "resource_missing", "payment_method"),
        ({"automatic_payment_methods[enabled]": None}, None, "automatic_payment_methods[enabled]"),
        (
            {"automatic_payment_methods[allow_redirects]": "always"},
            None,
            "automatic_payment_methods[allow_redirects]",
        ),
        ({"customer": "cus_1"}, "parameter_unknown", "customer"),
        ({"metadata": "flat"}, "parameter_unknown", "metadata"),
    ],
)
def test_wrong_parameters(
    sandbox: Sandbox, changes: dict[str, str | None], code: str | None, param: str | None
) -> None:
    """A wrong parameter is a 400 that names it, and nothing is charged."""
    result = sandbox.pay(**changes)
    error = result.json["error"]
    assert (result.status_code, error["type"]) == (400, "invalid_request_error")
    assert code == error.get("code")
    assert param in (None, error.get("param"))
    assert sandbox.shown()["summary"]["intents"] == 0


def test_unknown_payment_method_in_words(sandbox: Sandbox) -> None:
    """The message is the one that Stripe gives."""
    result = sandbox.pay(payment_method="pm_none")
    assert result.json["error"]["message"] == "No such PaymentMethod: 'pm_none'"


@pytest.mark.parametrize(
    ("auth", "status"),
    [
        (None, 401),
        ("Bearer ", 401),
        ("Bearer sk_live_abc", 401),
        ("Bearer pk_test_abc", 401),
        ("Basic c2tfdGVzdF9hYmM6", 401),
        ("Bearer sk_test_abc", 200),
    ],
)
def test_api_key(sandbox: Sandbox, auth: str | None, status: int) -> None:
    """Only a test key opens, as bearer; no key is ever repeated."""
    headers = {"Authorization": auth} if auth else {}
    result = sandbox.http.simulate_get("/v1/balance", headers=headers)
    assert status == result.status_code
    assert "abc" not in result.text


def test_live_key_in_words(sandbox: Sandbox) -> None:
    """A live key gets an error of its own, so that its owner notices."""
    headers = {"Authorization": "Bearer sk_live_abc"}
    result = sandbox.http.simulate_get("/v1/balance", headers=headers)
    assert "live key" in result.json["error"]["message"]


def test_replay(sandbox: Sandbox) -> None:
    """The same key and parameters, in whatever order, get the same answer and charge once."""
    first = sandbox.pay("k1")
    form = "&".join(f"{name}={value}" for name, value in reversed(PAYMENT.items()))
    second = sandbox.post(form, {"Idempotency-Key": "k1"})
    assert (first.status_code, first.json) == (second.status_code, second.json)
    assert tuple(r.headers.get("Idempotent-Replayed") for r in (first, second)) == (None, "true")
    assert sandbox.shown()["keys"] == {"k1": {"requests": 2, "captured": 1}}


def test_replay_of_a_decline(sandbox: Sandbox) -> None:
    """A decline is as final as a capture."""
    first, second = (sandbox.pay("k1", payment_method="pm_card_chargeDeclined") for _ in "12")
    assert (402, first.json) == (second.status_code, second.json)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert sandbox.shown()["summary"]["declined"] == 1


def test_key_with_other_parameters(sandbox: Sandbox) -> None:
    """The same key with other parameters is refused, and charges nothing."""
    sandbox.pay("k1")
    result = sandbox.pay("k1", amount="1251")
    assert (result.status_code, result.json["error"]["type"]) == (400, "idempotency_error")
    assert sandbox.shown()["summary"]["captured"] == 1


def test_long_key(sandbox: Sandbox) -> None:
    """A key may have 255 characters."""
    assert [sandbox.pay("k" * n).status_code for n in (255, 256)] == [200, 400]


def test_without_key(sandbox: Sandbox) -> None:
    """Without a key each request is a payment of its own."""
    assert sandbox.pay().json["id"] != sandbox.pay().json["id"]
    assert {"requests": 2, "captured": 2}.items() <= sandbox.shown()["summary"].items()


def test_balance(sandbox: Sandbox) -> None:
    """The balance is what was captured, by currency; declines are no part of it."""
    for changes in ({}, {"amount": "50"}, {"currency": "jpy"}):
        sandbox.pay(**changes)
    sandbox.pay(payment_method="pm_card_chargeDeclined")
    funds = sandbox.get("/v1/balance").json["available"]
    assert {fund["currency"]: fund["amount"] for fund in funds} == {"usd": 1300, "jpy": 1250}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/payment_intents/pi_0", 404),
        ("GET", "/v1/charges", 404),
        ("POST", "/v1/payment_intents/pi_0/cancel", 404),
        ("GET", "/v1/payment_intents", 405),
    ],
)
def test_what_is_not_there(sandbox: Sandbox, method: str, path: str, status: int) -> None:
    """What is not imitated is refused in Stripe's shape, which its library can read."""
    result = sandbox.http.simulate_request(method, path, headers=AUTH)
    assert status == result.status_code
    assert {"type", "message"} <= result.json["error"].keys()


def test_large_body(sandbox: Sandbox) -> None:
    """A body over 16 KiB is refused in Stripe's shape."""
    result = sandbox.post("a" * 16_385)
    assert (result.status_code, result.json["error"]["type"]) == (413, "invalid_request_error")


def test_other_content_type(sandbox: Sandbox) -> None:
    """A body that is no form is a 400 that says so."""
    result = sandbox.post("{}", {"Content-Type": "application/json"})
    assert result.status_code == 400
    assert "x-www-form-urlencoded" in result.json["error"]["message"]


def test_request_id(sandbox: Sandbox) -> None:
    """The platform's request id comes back under Stripe's name."""
    assert sandbox.post("", {"X-Request-Id": "r-1"}).headers["Request-Id"] == "r-1"


def test_shown(sandbox: Sandbox) -> None:
    """The sandbox lists its payments in pages or by key, and deletes them on demand."""
    for key in ("a", "b", "b", "c"):
        sandbox.pay(key)
    page = sandbox.shown(limit="2")
    rest = sandbox.shown(cursor=page["next_cursor"])
    assert [r["idempotency_key"] for r in (*page["data"], *rest["data"])] == ["c", "b", "a"]
    assert sandbox.shown(idempotency_key="b")["keys"] == {"b": {"requests": 2, "captured": 1}}
    expected = {
        "intents": 3,
        "captured": 3,
        "declined": 0,
        "requests": 4,
        "keys_captured_more_than_once": 0,
    }
    assert expected == page["summary"]
    assert sandbox.http.simulate_delete("/_sandbox/payment_intents").status_code == 204
    assert dict.fromkeys(expected, 0) == sandbox.shown()["summary"]


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "1001"}, {"cursor": "x"}, {"cursor": "9" * 30}]
)
def test_wrong_page(sandbox: Sandbox, query: dict[str, str]) -> None:
    """A page of the sandbox's own asked for wrongly is a problem document."""
    result = sandbox.get("/_sandbox/payment_intents", **query)
    assert (result.status_code, result.json["code"]) == (400, "bad-request")
