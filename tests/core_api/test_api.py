from __future__ import annotations

import re
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import falcon.testing
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common import store
from services.common.tokens import Tokens
from services.common.transaction import Credit
from services.core_api.app import create_app
from services.core_api.models import TransactionRequest
from services.core_api.settings import CoreSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "0123456789abcdef0123456789abcdef"
OLD_SECRET = "fedcba9876543210fedcba9876543210"
PAYMENT = {"amount": 1250, "currency": "USD"}
BAD_AMOUNTS: tuple[Any, ...] = (
    0, -1, 100_000_000, 1.0, 1e2, True, None, "", "1.0", "+1", "-1", " 1", "1e3", "٣", "0x10",
    [], {}, "9" * 30,
)  # fmt: skip
Client = falcon.testing.TestClient


def settings(port: int, **more: str) -> CoreSettings:
    environ = {
        "HTTP_PORT": "1",
        "ALLOWED_HOSTS": "falconframework.org",
        "JWT_SECRET": SECRET,
        "JWT_SECRET_PREVIOUS": OLD_SECRET,
        "REDIS_URL": f"redis://127.0.0.1:{port}/0",
    }
    return CoreSettings.read(environ | more)


@pytest.fixture
def api(client: Any, redis_port: int) -> Client:  # noqa: ARG001  it empties Redis
    """The service on the private Redis, which is empty."""
    return Client(create_app(settings(redis_port)))


def bearer(user_id: int = 1, *, enabled: bool = True) -> dict[str, str]:
    token = Tokens(settings(1)).issue(user_id, f"user{user_id}", enabled=enabled)
    return {"Authorization": f"Bearer {token}"}


def pay(api: Client, body: Any = PAYMENT, **headers: str) -> Any:
    return api.simulate_post("/", json=body, headers=bearer() | headers)


def test_a_transaction_is_accepted_and_queued(api: Client, client: Any) -> None:
    """202, a Location, the transaction as the contract shows it, and one entry on the queue."""
    result = pay(api, **{"X-Request-Id": "req-1"})
    assert result.status_code == 202
    answer = result.json
    assert f"/{answer['id']}" == result.headers["location"]
    assert uuid.UUID(answer["id"]).version == 4
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer["created_at"])
    assert {
        "id": answer["id"], "user_id": 1, "amount": 1250, "currency": "USD",
        "payment_method": "pm_card_visa", "status": "queued", "created_at": answer["created_at"],
        "updated_at": answer["created_at"], "attempts": 0,
        "timeline": [{"event": "queued", "at": answer["created_at"]}],
    } == answer  # fmt: skip
    [(_, entry)] = client.xrange(store.QUEUE)
    assert {"transaction_id": answer["id"], "request_id": "req-1", "user_id": "1"} == entry
    assert answer == api.simulate_get(f"/{answer['id']}", headers=bearer()).json


def test_the_older_path_does_the_same(api: Client) -> None:
    """`POST /transaction` answers as `POST /` does."""
    result = api.simulate_post("/transaction", json=PAYMENT, headers=bearer())
    assert (result.status_code, result.json["status"]) == (202, "queued")


@pytest.mark.parametrize("amount", [1, 99_999_999, "1", "0100", "99999999"])
def test_good_amounts(api: Client, amount: Any) -> None:
    """A whole number of the smallest unit, as a JSON integer or as digits."""
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
    ],
)  # fmt: skip
def test_a_wrong_field_is_pointed_at(api: Client, client: Any, change: Any, pointer: str) -> None:
    """422 with an entry for the field that is wrong; nothing is queued."""
    result = pay(api, PAYMENT | change)
    assert (result.status_code, result.json["code"]) == (422, "invalid-request")
    assert [pointer] == [error["pointer"] for error in result.json["errors"]]
    assert client.xlen(store.QUEUE) == 0


def test_every_wrong_field_has_its_entry(api: Client) -> None:
    """All that is wrong is said in one answer."""
    result = pay(api, {"amount": "x", "currency": "usd", "payment_method": "cash"})
    assert [error["pointer"] for error in result.json["errors"]] == [
        "/amount",
        "/currency",
        "/payment_method",
    ]


def test_a_wrong_payment_method_is_told_in_words(api: Client) -> None:
    """Not as the pattern that it does not match; which the API's description still has."""
    result = pay(api, PAYMENT | {"payment_method": "cash"})
    assert result.json["errors"] == [
        {
            "pointer": "/payment_method",
            "detail": "must be one of Stripe's test names, such as pm_card_visa",
        }
    ]
    schema = TransactionRequest.model_json_schema()["properties"]["payment_method"]
    assert schema["pattern"] == "^pm_[A-Za-z0-9_]{1,64}$"


def test_the_token_may_come_in_the_body(api: Client) -> None:
    """HTTPie's `token=…` works; the token is kept nowhere."""
    token = bearer()["Authorization"].removeprefix("Bearer ")
    result = api.simulate_post("/", json=PAYMENT | {"token": token})
    assert result.status_code == 202
    assert "token" not in result.json


def test_a_token_in_both_places_is_refused(api: Client) -> None:
    """RFC 6750, 2: a client uses one way only."""
    assert pay(api, PAYMENT | {"token": "x"}).status_code == 400


def without(claim: str) -> str:
    changes: dict[str, Any] = {claim: ...}
    return sign(**changes)


def sign(key: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": "auth-api", "aud": "core-api", "sub": "1", "username": "alice", "enabled": True,
        "iat": now, "exp": now + 30, "jti": "x",
    } | changes  # fmt: skip
    return jwt.encode({k: v for k, v in claims.items() if v is not ...}, key, algorithm=algorithm)


def test_the_previous_secret_still_verifies(api: Client) -> None:
    """While a secret is being changed, tokens under the old one are good."""
    headers = {"Authorization": f"Bearer {sign(OLD_SECRET)}"}
    assert api.simulate_get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "token",
    [
        sign("another secret of thirty-two bytes"),
        sign(algorithm="HS512", key=SECRET * 2),
        jwt.encode({"sub": "1"}, "", algorithm="none"),
        sign(exp=int(time.time()) - 1, iat=int(time.time()) - 31),
        sign(iat=int(time.time()) + 3600),
        sign(iss="somebody"),
        sign(aud="somebody"),
        sign(aud=["core-api-2"]),
        sign(sub=1),
        sign(sub="alice"),
        sign(sub="1; drop"),
        sign(enabled="true"),
        sign(enabled=1),
        *[without(claim) for claim in ("iss", "aud", "sub", "username", "enabled")],
        *[without(claim) for claim in ("iat", "exp", "jti")],
        sign(exp="soon"),
        sign(exp=int(time.time()) + 31),
        sign(exp=10**400),
        "x.y.z",
        "....",
        "é" * 10,
        "a" * 5000,
    ],
)
def test_a_token_that_is_not_ours_is_refused(api: Client, token: str) -> None:
    """401 with a challenge for any token that is wrong in any claim, key or algorithm."""
    encoded = token.encode().decode("latin-1")
    for result in (
        api.simulate_get("/", headers={"Authorization": f"Bearer {encoded}"}),
        api.simulate_post("/", json=PAYMENT | {"token": token}),
    ):
        assert (result.status_code, result.json["code"]) == (401, "invalid-token")
        assert 'error="invalid_token"' in result.headers["www-authenticate"]
        assert token[:40] not in result.text


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "x"])
def test_a_bad_authorization_header_is_refused(api: Client, header: str) -> None:
    """401 for anything but a bearer token."""
    assert api.simulate_get("/", headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize(
    ("body", "content_type"),
    [("", None), ("{}", "application/json"), ("{", "application/json"), ("a=b", "text/plain")],
)
def test_who_asks_comes_before_what(api: Client, body: str, content_type: str | None) -> None:
    """Without a token the answer is 401 with a plain challenge, however wrong the body."""
    headers = {"Content-Type": content_type} if content_type else {}
    result = api.simulate_post("/", body=body, headers=headers)
    assert (result.status_code, result.json["code"]) == (401, "unauthorized")
    assert result.headers["www-authenticate"] == 'Bearer realm="transactions"'


def test_a_disabled_user_is_refused_everywhere(api: Client, client: Any) -> None:
    """403 for charlie, whatever he asks; nothing is queued."""
    headers = bearer(3, enabled=False)
    assert api.simulate_post("/", json=PAYMENT, headers=headers).status_code == 403
    assert api.simulate_get("/", headers=headers).status_code == 403
    assert client.xlen(store.QUEUE) == 0


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("{", "application/json", 400),
        ("[" * 16_000, "application/json", 400),
        ("9" * 16_000, "application/json", 400),
        ('{"amount": NaN, "currency": "USD"}', "application/json", 422),
        ("{}", "text/plain", 415),
        ("{}", None, 415),
        ('"' + "x" * 17_000 + '"', "application/json", 413),
    ],
)
def test_bad_bodies(api: Client, body: str, content_type: str | None, status: int) -> None:
    """Malformed, of another type, or too large: each its own status."""
    headers = bearer() | ({"Content-Type": content_type} if content_type else {})
    result = api.simulate_post("/", body=body, headers=headers)
    expected = {status, 422} if body.startswith("9") else {status}
    assert result.status_code in expected


def test_another_users_transaction_is_not_found(api: Client) -> None:
    """404, the same as for one that does not exist, or is no id at all."""
    mine = pay(api).json["id"]
    for path in (f"/{mine}", f"/{uuid.uuid4()}", "/not-an-id", f"/{mine}/x"):
        result = api.simulate_get(path, headers=bearer(2))
        assert (result.status_code, result.json["code"]) == (404, "not-found")


def test_a_repeated_key_gives_the_first_answer(api: Client, client: Any) -> None:
    """Same key, same request: the stored answer, marked as replayed, and one queue entry."""
    first = pay(api, **{"Idempotency-Key": "k"})
    again = pay(api, PAYMENT | {"amount": "1250"}, **{"Idempotency-Key": "k"})
    assert (202, first.json) == (again.status_code, again.json)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert first.headers["location"] == again.headers["location"]
    assert client.xlen(store.QUEUE) == 1
    assert 0 < client.ttl(store.idempotency_key(1, "k")) <= 24 * 3600


def test_a_key_with_another_request_is_refused(api: Client, client: Any) -> None:
    """422 with a code of its own; nothing is queued."""
    pay(api, **{"Idempotency-Key": "k"})
    result = pay(api, PAYMENT | {"amount": 1}, **{"Idempotency-Key": "k"})
    assert (result.status_code, result.json["code"]) == (422, "idempotency-key-reused")
    assert client.xlen(store.QUEUE) == 1


def test_a_key_is_its_users_own(api: Client) -> None:
    """Two merchants may choose the same key."""
    first = pay(api, **{"Idempotency-Key": "k"})
    second = api.simulate_post("/", json=PAYMENT, headers=bearer(2) | {"Idempotency-Key": "k"})
    assert first.json["id"] != second.json["id"]


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é", "a\x7f", "a,b", "a, b"])
def test_a_bad_key_is_refused(api: Client, key: str) -> None:
    """It has 1 to 255 visible ASCII characters; a comma is what joins two that were sent."""
    assert pay(api, **{"Idempotency-Key": key}).status_code == 400


def test_fifty_at_once_with_one_key_are_one_transaction(api: Client, client: Any) -> None:
    """However many come at the same moment, one is accepted and the rest get its answer."""
    start = threading.Barrier(50)

    def one() -> Any:
        start.wait(10)
        return pay(api, **{"Idempotency-Key": "k"})

    with ThreadPoolExecutor(50) as pool:
        results = [future.result(30) for future in [pool.submit(one) for _ in range(50)]]
    assert {result.status_code for result in results} == {202}
    assert len({result.json["id"] for result in results}) == 1
    assert sum("idempotency-replayed" in result.headers for result in results) == 49
    assert client.xlen(store.QUEUE) == 1


def test_a_full_queue_refuses(redis_port: int, client: Any) -> None:
    """At QUEUE_LIMIT open ones the answer is 503 with Retry-After, and nothing is written."""
    api = Client(create_app(settings(redis_port, QUEUE_LIMIT="2")))
    pay(api)
    client.zadd(store.RETRIES, {"waiting": 1})
    keys = set(client.keys())
    result = pay(api, **{"Idempotency-Key": "k"})
    assert (result.status_code, result.headers["retry-after"]) == (503, "1")
    assert keys == set(client.keys())


@pytest.mark.parametrize(
    "broken",
    [
        {"timeline": "{"}, {"timeline": "[" * 100_000}, {"amount": "12.5"}, {"user_id": "one"},
        {"attempts": b"\xff"}, "no hash", "no status", "no timeline", "no user_id",
    ],
)  # fmt: skip
def test_a_record_broken_by_hand_hides_no_other(api: Client, client: Any, broken: Any) -> None:
    """It is left out of the list, 404 by itself, and never a 500."""
    first, second, third = (pay(api).json["id"] for _ in range(3))
    key = store.transaction_key(second)
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
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    for _page in range(3):
        page = api.simulate_get("/", headers=bearer(), params=params).json
        seen += [transaction["id"] for transaction in page["transactions"]]
        params["cursor"] = page.get("next_cursor")
    assert params["cursor"] is None
    # Those of one millisecond are in the order of their ids.
    assert set(ids) == set(seen)
    assert len(seen) == 5
    created = [api.simulate_get(f"/{i}", headers=bearer()).json["created_at"] for i in seen]
    assert sorted(created, reverse=True) == created


@pytest.mark.parametrize("path", ["/", "/loyalty"])
@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"limit": "0"}, "?limit"), ({"limit": "101"}, "?limit"), ({"limit": "x"}, "?limit"),
        ({"limit": "-1"}, "?limit"), ({"limit": "٣"}, "?limit"), ({"cursor": "!!"}, "?cursor"),
        ({"cursor": "eA"}, "?cursor"), ({"cursor": "é"}, "?cursor"),
        ({"cursor": "A" * 999}, "?cursor"),
    ],
)  # fmt: skip
def test_bad_paging_is_pointed_at(api: Client, path: str, params: Any, pointer: str) -> None:
    """422 for a limit or a cursor that is none."""
    result = api.simulate_get(path, headers=bearer(), params=params)
    assert (422, pointer) == (result.status_code, result.json["errors"][0]["pointer"])


def test_loyalty_shows_points_and_where_they_come_from(api: Client, client: Any) -> None:
    """Points and the ledger, newest first, in pages."""
    client.set(store.points_key(1), 6)
    for points in (1, 2, 3):
        credit = Credit(transaction_id="t", points=points, amount=1, currency="JPY", at="x")
        client.rpush(store.ledger_key(1), credit.to_json())
    first = api.simulate_get("/loyalty", headers=bearer(), params={"limit": 2}).json
    assert (first["points"], [credit["points"] for credit in first["ledger"]]) == (6, [3, 2])
    params = {"limit": 2, "cursor": first["next_cursor"]}
    second = api.simulate_get("/loyalty", headers=bearer(), params=params).json
    assert [credit["points"] for credit in second["ledger"]] == [1]
    assert "next_cursor" not in second


def test_no_points_yet(api: Client) -> None:
    """A new user has none."""
    assert api.simulate_get("/loyalty", headers=bearer()).json == {"points": 0, "ledger": []}


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("away", ["refused", "silent"])
def test_redis_away_is_a_quick_503(silent_port: int, away: str) -> None:
    """503 with Retry-After well before a client gives up; health names Redis."""
    port = silent_port if away == "silent" else 1
    api = Client(create_app(settings(port)))
    started = time.monotonic()
    result = pay(api)
    assert time.monotonic() - started < 5  # 1 s is the aim; the machine is shared
    assert (result.status_code, result.headers["retry-after"]) == (503, "1")
    assert "127.0.0.1" not in result.text
    health = api.simulate_get("/health")
    assert (health.status_code, health.json["checks"]) == (503, {"redis": "fail"})


def test_a_redis_that_stalls_may_accept_after_the_503(api: Client, client: Any) -> None:
    """It finds the request when it goes on: the answer says so, and the same key finds it."""
    stall = "local t = redis.call('TIME')[1] + 2 while redis.call('TIME')[1] + 0 < t do end"
    with ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(client.eval, stall, 0)
        time.sleep(0.1)
        result = pay(api, **{"Idempotency-Key": "k"})
        stalled.result(10)
    assert result.status_code == 503
    assert "may have been accepted" in result.json["detail"]
    assert pay(api, **{"Idempotency-Key": "k"}).status_code == 202
    assert client.zcard(store.index_key(1)) == 1


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_redis_that_refuses_to_write_writes_nothing(
    api: Client, client: Any, trouble: str
) -> None:
    """Out of memory or a replica: 503 and not a key of it is written."""
    before = ("maxmemory", "1gb") if trouble == "full" else ("replicaof",)
    if trouble == "full":
        client.config_set("maxmemory", "1")
    else:
        client.replicaof("127.0.0.1", "1")
    try:
        result = pay(api, **{"Idempotency-Key": "k"})
        keys = client.keys()
    finally:
        if trouble == "full":
            client.config_set(*before)
        else:
            client.replicaof("NO", "ONE")
    assert result.status_code == 503
    assert keys == []


def test_a_restarted_redis_is_found_again(api: Client, client: Any) -> None:
    """Connections that went stale cost a client nothing."""
    assert pay(api).status_code == 202
    for _ in range(3):
        client.client_kill_filter(_type="normal", skipme=True)
        assert pay(api).status_code == 202


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
bodies = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {"amount": json_values, "currency": st.sampled_from(["USD", "usd", "JPY"]) | json_values},
        optional={"payment_method": json_values, "token": json_values},
    ),
)


@given(bodies, st.booleans())
def test_no_json_whatever_makes_a_500(redis_port: int, body: Any, with_token: bool) -> None:  # noqa: FBT001
    """Any JSON body is accepted with 202 or refused with 4xx, with a token or without."""
    api = _api_on(redis_port)
    result = api.simulate_post("/", json=body, headers=bearer() if with_token else {})
    assert result.status_code == 202 or 400 <= result.status_code < 500


@given(st.text(max_size=80), st.binary(max_size=200))
def test_no_header_or_bytes_whatever_make_a_500(redis_port: int, text: str, body: bytes) -> None:
    """Nor does any header, path, cursor or body of bytes."""
    api = _api_on(redis_port)
    # As a server hands it on: Latin-1, and no line ends.
    header = "".join(c for c in text if c.isprintable()).encode().decode("latin-1").strip()
    json_type = {"Content-Type": "application/json"}
    results = [
        api.simulate_post("/", body=body, headers=bearer() | json_type),
        api.simulate_post("/", body=body, headers=json_type | {"Authorization": header}),
        api.simulate_post("/", json=PAYMENT, headers=bearer() | {"Idempotency-Key": header}),
        api.simulate_get("/", params={"cursor": text}, headers=bearer()),
    ]
    assert {500} & {result.status_code for result in results} == set()


_apis: dict[int, Client] = {}


def _api_on(port: int) -> Client:
    return _apis.setdefault(port, Client(create_app(settings(port))))


def test_openapi_names_every_path(api: Client) -> None:
    """The document is OpenAPI 3.1; what it says is tried by tests/common/test_openapi.py."""
    document = api.simulate_get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {
        "/",
        "/transaction",
        "/loyalty",
        "/{transaction_id}",
        "/health",
    }
