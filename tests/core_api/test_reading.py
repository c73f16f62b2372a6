"""Reading one transaction, pages of transactions, and loyalty points."""

import uuid
from typing import Any

import pytest

from services.common import store
from services.common.transaction import Credit
from tests.core_api.helpers import Client, bearer, pages, pay


def test_another_users_transaction_is_not_found(api: Client) -> None:
    """Another user's transaction gets the same 404 as an unknown or malformed id."""
    mine = pay(api).json["id"]
    for path in (f"/{mine}", f"/{uuid.uuid4()}", "/not-an-id", f"/{mine}/x"):
        result = api.simulate_get(path, headers=bearer(2))
        assert (result.status_code, result.json["code"]) == (404, "not-found")


@pytest.mark.parametrize(
    "broken",
    [
        {"timeline": "{"}, {"timeline": "[" * 100_000}, {"amount": "12.5"}, {"user_id": "one"},
        {"attempts": b"\xff"}, "no hash", "no status", "no timeline", "no user_id",
    ],
)  # fmt: skip
def test_a_record_broken_by_hand_hides_no_other(api: Client, client: Any, broken: Any) -> None:
    """A corrupt record is left out of lists and is 404 itself, never a 500."""
    first, second, third = (pay(api).json["id"] for _ in range(3))
    key = store.WHOLE.transaction(second)
    if broken == "no hash":
        client.delete(key)
        client.set(key, "text")
    elif isinstance(broken, str):
        client.hdel(key, broken.removeprefix("no "))
    else:
        client.hset(key, mapping=broken)
    listed = api.simulate_get("/", headers=bearer())
    assert (200, [third, first]) == (
        listed.status_code, [one["id"] for one in listed.json["transactions"]],
    )  # fmt: skip
    assert api.simulate_get(f"/{second}", headers=bearer()).status_code == 404


def test_pages_are_newest_first_and_meet(api: Client) -> None:
    """Following the cursors shows every transaction once, newest first."""
    ids = [pay(api).json["id"] for _ in range(5)]
    seen = [one for page in pages(api, "/") for one in page.json["transactions"]]
    assert sorted(one["id"] for one in seen) == sorted(ids)
    # Those of one millisecond are in the order of their ids.
    created = [one["created_at"] for one in seen]
    assert created == sorted(created, reverse=True)


@pytest.mark.parametrize("path", ["/", "/loyalty"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("limit", limit) for limit in ("0", "101", "x", "-1", "٣")),
        *(("cursor", cursor) for cursor in ("!!", "eA", "é", "A" * 999)),
    ],
)
def test_bad_paging_is_pointed_at(api: Client, path: str, name: str, value: str) -> None:
    """An invalid limit or cursor gets 422."""
    result = api.simulate_get(path, headers=bearer(), params={name: value})
    assert (result.status_code, result.json["errors"][0]["pointer"]) == (422, f"?{name}")


def test_loyalty_shows_points_and_where_they_come_from(api: Client, client: Any) -> None:
    """The response has points and ledger entries, newest first, in pages; a new user has none."""
    assert api.simulate_get("/loyalty", headers=bearer()).json == {"points": 0, "ledger": []}
    client.set(store.WHOLE.points(1), 6)
    for points in (1, 2, 3):
        credit = Credit(transaction_id="t", points=points, amount=1, currency="JPY", at="x")
        client.rpush(store.WHOLE.ledger(1), credit.to_json())
    listed = [page.json for page in pages(api, "/loyalty")]
    assert [page["points"] for page in listed] == [6, 6]
    ledgers = [[credit["points"] for credit in page["ledger"]] for page in listed]
    assert ledgers == [[3, 2], [1]]
