import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.common import store
from services.core_api.models import TransactionRequest
from tests.core_api.helpers import PAYMENT, Client, bearer, pay

BAD_AMOUNTS: tuple[Any, ...] = (
    0, -1, 100_000_000, 1.0, 1e2, True, None, "", "1.0", "+1", "-1", " 1", "1e3", "٣", "0x10",
    [], {}, "9" * 30, float("nan"),
)  # fmt: skip


def test_a_transaction_is_accepted_and_queued(api: Client, client: Any) -> None:
    """The response is 202 with Location and the contract's fields; the queue has one entry."""
    result = pay(api, **{"X-Request-Id": "req-1"})
    assert result.status_code == 202
    response = result.json
    assert f"/{response['id']}" == result.headers["location"]
    assert uuid.UUID(response["id"]).version == 4
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", response["created_at"])
    assert {
        "id": response["id"], "user_id": 1, "amount": 1250, "currency": "USD",
        "payment_method": "pm_card_visa", "status": "queued", "created_at": response["created_at"],
        "updated_at": response["created_at"], "attempts": 0,
        "timeline": [{"event": "queued", "at": response["created_at"]}],
    } == response  # fmt: skip
    [(_, entry)] = client.xrange(store.WHOLE.queue)
    ids = {"transaction_id": response["id"], "request_id": "req-1", "user_id": "1"}
    assert ids | {"traceparent": ""} == entry
    assert response == api.simulate_get(f"/{response['id']}", headers=bearer()).json


@pytest.mark.parametrize("amount", [1, 99_999_999, "1", "0100", "99999999"])
def test_good_amounts(api: Client, amount: Any) -> None:
    """An amount is a whole number of the smallest unit, as a JSON integer or as digits."""
    result = pay(api, PAYMENT | {"amount": amount})
    assert (202, int(amount)) == (result.status_code, result.json["amount"])


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        *[
            ({"amount": amount}, "/amount")
            for amount in BAD_AMOUNTS
        ],
        *[
            ({"currency": currency}, "/currency")
            for currency in ("usd", "US", "USDX", "XXX", "XAU", "BGN", "", None, 840, "US\u017f")
        ],
        *[
            ({"payment_method": method}, "/payment_method")
            for method in ("", "visa", "pm_", "pm_a b", "pm_" + "x" * 65, 1)
        ],
        ({"ammount": 3}, ""),
        ({"amount": "x", "currency": "usd", "payment_method": "cash"},
         "/amount /currency /payment_method"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_pointed_at(api: Client, client: Any, change: Any, pointer: str) -> None:
    """A 422 has an entry for each invalid field, without patterns, and nothing is queued."""
    result = pay(api, PAYMENT | change)
    assert (result.status_code, result.json["code"]) == (422, "invalid-request")
    assert " ".join(error["pointer"] for error in result.json["errors"]) == pointer
    assert "pattern" not in result.text
    assert client.xlen(store.WHOLE.queue) == 0


def test_a_key_is_of_one_request_of_one_user(api: Client, client: Any) -> None:
    """Repeated, it gets the stored response, marked as replayed; with another body, 422."""
    key = {"Idempotency-Key": "k"}
    first, again = pay(api, **key), pay(api, PAYMENT | {"amount": "1250"}, **key)
    assert (again.status_code, again.json) == (202, first.json)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert 0 < client.ttl(store.WHOLE.idempotency(1, "k")) <= 24 * 3600
    other = pay(api, PAYMENT | {"amount": 1}, **key)
    assert (other.status_code, other.json["code"]) == (422, "idempotency-key-reused")
    assert client.xlen(store.WHOLE.queue) == 1
    assert pay(api, **key, **bearer(2)).json["id"] != first.json["id"]


def test_a_new_optional_field_keeps_the_fingerprint() -> None:
    """A request repeated after a release that adds a field still has the same fingerprint."""

    class Next(TransactionRequest):
        note: str | None = None

    first, other = ({"amount": 1250, "currency": "USD"}, {"note": "x"})
    fingerprint = TransactionRequest.model_validate(first).fingerprint()
    assert Next.model_validate(first).fingerprint() == fingerprint
    assert Next.model_validate(first | other).fingerprint() != fingerprint


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é", "a\x7f", "a,b", "a, b"])
def test_a_bad_key_is_refused(api: Client, key: str) -> None:
    """A key has 1 to 255 visible ASCII characters; a comma would join two headers."""
    assert pay(api, **{"Idempotency-Key": key}).status_code == 400


def test_fifty_at_once_with_one_key_are_one_transaction(api: Client, client: Any) -> None:
    """One of 50 concurrent requests is accepted; the others get its response."""
    start = threading.Barrier(50)

    def one() -> Any:
        start.wait(10)
        return pay(api, **{"Idempotency-Key": "k"})

    with ThreadPoolExecutor(50) as pool:
        results = [future.result(30) for future in [pool.submit(one) for _ in range(50)]]
    assert {result.status_code for result in results} == {202}
    assert len({result.json["id"] for result in results}) == 1
    assert sum("idempotency-replayed" in result.headers for result in results) == 49
    assert client.xlen(store.WHOLE.queue) == 1
