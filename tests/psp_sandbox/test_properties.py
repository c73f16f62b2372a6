"""The sandbox responds to every input and never charges a key twice."""

from __future__ import annotations

from urllib.parse import urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.psp_sandbox.store import Store
from tests.psp_sandbox.sandbox import PAYMENT, Sandbox

# The examples share one sandbox, which may remember the ones before.
many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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


@many
@given(body=forms | st.binary(max_size=300), key=keys)
def test_no_body_makes_a_500(sandbox: Sandbox, body: str | bytes, key: str) -> None:
    """Any form, bytes and key get a response in Stripe's shape below 500."""
    result = sandbox.post(body, {"Idempotency-Key": key})
    assert result.status_code in (200, 400, 402)
    assert {"id", "error"} & result.json.keys()


@many
@given(query=st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_query_makes_a_500(sandbox: Sandbox, query: str) -> None:
    """Any query gets 200 or 400."""
    result = sandbox.get("/_sandbox/payment_intents", **{query: query, "limit": query})
    assert result.status_code in (200, 400)


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


@settings(many, max_examples=60)
@given(steps=steps)
def test_a_key_is_charged_once(steps: list[tuple[str, str, str]]) -> None:
    """In any series of requests, each key captures once and gets the same response."""
    sandbox = Sandbox(Store(None))
    first: dict[str, tuple[str, str]] = {}
    paid: dict[str, object] = {}
    for key, amount, method in steps:
        result = sandbox.pay(key, amount=amount, payment_method=method)
        if first.setdefault(key, (amount, method)) != (amount, method):
            assert result.json["error"]["type"] == "idempotency_error"
        elif result.status_code in (200, 402):
            assert paid.setdefault(key, result.json) == result.json
    summary = sandbox.shown()["summary"]
    sandbox.store.close()
    assert (summary["intents"], summary["keys_captured_more_than_once"]) == (len(paid), 0)
