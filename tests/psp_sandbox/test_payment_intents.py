"""Stripe's paths: shapes, declines, validation, keys, lists."""

from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.psp_sandbox.store import Store
from tests.psp_sandbox.sandbox import FORM, PAYMENT, Sandbox


def test_captures(sandbox: Sandbox) -> None:
    """A good card is captured at once, and the payment is recorded."""
    made = sandbox.pay()
    intent = made.json
    assert made.status_code == 200
    assert (intent["object"], intent["status"]) == ("payment_intent", "succeeded")
    assert (intent["amount"], intent["amount_received"], intent["currency"]) == (1250, 1250, "usd")
    assert intent["metadata"] == {"transaction_id": "t-1"}
    assert [row["payment_intent"] for row in sandbox.recorded()["data"]] == [intent]


@pytest.mark.parametrize(
    ("method", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
    ],
)
def test_declines(sandbox: Sandbox, method: str, code: str, decline_code: str | None) -> None:
    """A declined card gets 402 with Stripe's codes and the uncaptured payment."""
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
        ({"amount": "\u0661\u0662"}, "parameter_invalid_integer", "amount"),
        ({"amount": "0"}, "parameter_invalid_integer", "amount"),
        ({"amount": "9" * 5000}, "parameter_invalid_integer", "amount"),
        ({"amount": "100000000"}, "amount_too_large", "amount"),
        ({"amount": ""}, "parameter_missing", "amount"),
        ({"amount": None}, "parameter_missing", "amount"),
        ({"currency": "xyz"}, None, "currency"),
        ({"currency": "USD"}, None, "currency"),
        ({"currency": "iqd"}, None, "currency"),
        ({"currency": "isk", "amount": "150"}, "invalid_charge_amount", "amount"),
        ({"currency": "kwd", "amount": "5124"}, "invalid_charge_amount", "amount"),
        ({"confirm": "1"}, None, "confirm"),
        ({"payment_method": None}, "parameter_missing", "payment_method"),
        ({"payment_method": "pm_unknown"}, "resource_missing", "payment_method"),
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
    sandbox: Sandbox, changes: dict[str, str | None], code: str | None, param: str
) -> None:
    """A wrong parameter is a 400 that names it, and nothing is charged."""
    result = sandbox.pay(**changes)
    error = result.json["error"]
    assert (result.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error.get("code"), error.get("param")) == (code, param)
    assert sandbox.recorded()["summary"]["intents"] == 0


@pytest.mark.parametrize(
    "auth",
    ["", "Bearer ", "Bearer sk_live_abc", "Bearer pk_test_abc", "Basic c2tfdGVzdF9hYmM6"],
)
def test_api_key(sandbox: Sandbox, auth: str) -> None:
    """Any but a test key as bearer is refused; none is echoed, and a live one gets a hint."""
    headers = {"Authorization": auth} if auth else {}
    result = sandbox.http.simulate_get("/v1/payment_intents", headers=headers)
    assert result.status_code == 401
    assert "abc" not in result.text
    assert ("live key" in result.text) is ("live" in auth)


def test_long_key(sandbox: Sandbox) -> None:
    """A key may have 255 characters."""
    assert [sandbox.pay("k" * n).status_code for n in (255, 256)] == [200, 400]


def test_list(sandbox: Sandbox) -> None:
    """The newest payments come first, at most `limit`. Without a key, each is a separate one."""
    intents = [sandbox.pay().json for _ in range(3)]
    newest = intents[:0:-1]
    expected = {"object": "list", "url": "/v1/payment_intents", "has_more": True, "data": newest}
    assert sandbox.get("/v1/payment_intents?limit=2").json == expected
    every = sandbox.get("/v1/payment_intents").json
    assert (len(every["data"]), every["has_more"]) == (3, False)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/pi_0/cancel", "", 404),
        ("PUT", "", "", 405),
        ("GET", "?limit=101", "", 400),
        ("POST", "", "a" * 16_385, 413),
        ("POST", "", '{"amount": 1}', 400),
    ],
    ids=["path", "method", "limit", "long", "JSON"],
)
def test_refused_requests(sandbox: Sandbox, method: str, path: str, body: str, status: int) -> None:
    """Other requests than it supports are refused in Stripe's shape, which its library can read."""
    url = f"/v1/payment_intents{path}"
    result = sandbox.http.simulate_request(method, url, body=body, headers=FORM)
    assert (result.status_code, result.json["error"]["type"]) == (status, "invalid_request_error")


def test_request_id(sandbox: Sandbox) -> None:
    """The response has the platform's request id under Stripe's name."""
    assert sandbox.post("", {"X-Request-Id": "r-1"}).headers["Request-Id"] == "r-1"


def test_recorded_payments(sandbox: Sandbox) -> None:
    """The sandbox lists its payments, newest first."""
    for key in ("a", "b", "b", "c"):
        sandbox.pay(key)
    recorded = sandbox.recorded(limit="2")
    rows = [(row["idempotency_key"], row["requests"]) for row in recorded["data"]]
    assert rows == [("c", 1), ("b", 2)]
    assert recorded["summary"] == {
        "intents": 3, "captured": 3, "declined": 0, "requests": 4,
        "keys_captured_more_than_once": 0,
    }  # fmt: skip


names = st.one_of(
    st.sampled_from([*PAYMENT, "metadata[]", "metadata[a][b]", "limit"]),
    st.text(max_size=20),
)
values = st.one_of(
    st.sampled_from(["", "-1", "true", "9" * 30, "pm_card_chargeDeclined", "eur", "\x00"]),
    st.text(max_size=20),
)
forms = st.dictionaries(names, values, max_size=6).map(lambda form: urlencode(PAYMENT | form))
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=300)


@given(body=forms | st.binary(max_size=300), key=keys)
def test_no_body_makes_a_500(sandbox: Sandbox, body: str | bytes, key: str) -> None:
    """Any form, bytes and key get a response in Stripe's shape below 500."""
    result = sandbox.post(body, {"Idempotency-Key": key})
    assert result.status_code in (200, 400, 402)
    assert {"id", "error"} & result.json.keys()


steps = st.lists(
    st.tuples(
        st.sampled_from(["k1", "k2"]),
        st.sampled_from(["100", "200"]),
        st.sampled_from(
            ["pm_card_visa", "pm_card_chargeDeclined", "pm_sandbox_flaky", "pm_sandbox_error_500",
             "pm_sandbox_timeout_after_capture"]
        ),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=60)
@given(steps=steps)
def test_a_key_is_charged_once(steps: list[tuple[str, str, str]]) -> None:
    """In any series of requests, each key is charged once and its first response is replayed.

    The parameters of a repeated request may be in another order.
    """
    sandbox = Sandbox(Store(None))
    first: dict[str, tuple[str, str]] = {}
    paid: dict[str, tuple[int, object]] = {}
    for key, amount, method in steps:
        form = [*(PAYMENT | {"amount": amount, "payment_method": method}).items()]
        form.sort(reverse=key in paid)
        result = sandbox.post(urlencode(form), {"Idempotency-Key": key})
        if first.setdefault(key, (amount, method)) != (amount, method):
            assert result.json["error"]["type"] == "idempotency_error"
        elif key in paid or result.status_code in (200, 402):
            is_replayed = result.headers.get("Idempotent-Replayed") == "true"
            assert is_replayed == (key in paid)
            response = (result.status_code, result.json)
            assert paid.setdefault(key, response) == response
    summary = sandbox.recorded()["summary"]
    sandbox.store.close()
    assert summary["intents"] == len(paid)
