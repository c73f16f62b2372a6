"""Data in Redis may have been changed by hand."""

import json
from typing import Any

import hypothesis
import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from services.common import store
from services.core_api.app import create_app
from services.core_api.models import TransactionRequest
from tests.core_api.helpers import PAYMENT, Client, bearer, pages, pay, settings

# What is in Redis: each of the user's keys with any type and content, or nearly right.
ID = "8b7e8b26-0000-4000-8000-000000000001"
MEMBER = f"1795417668000:{ID}"
near_texts = [
    "", "abc", "1.5", "{", "5", "null", "nan", "1e999", "9" * 5000, "[" * 500, '"\\ud800"', MEMBER,
    '{"points": 1}', '{"event": "\\ud800"}', '{"event": "queued"}', f'{{"id": "{ID}"}}',
    '{"id": "a\\nb"}', TransactionRequest.model_validate(PAYMENT).fingerprint(), str(2**63),
]  # fmt: skip
texts = st.sampled_from([text.encode() for text in near_texts]) | st.binary(max_size=9)
RECORD = {
    "id": ID, "user_id": "1", "amount": "1", "currency": "USD", "payment_method": "pm_card_visa",
    "status": "queued", "created_at": "x", "updated_at": "x", "attempts": "0", "timeline": "",
}  # fmt: skip


def replay(response: bytes) -> dict[str, Any]:
    """The response to a repeated request with this stored response."""
    return {"fingerprint": near_texts[-2], "answer": response}


fields = st.sampled_from([*RECORD, "fingerprint", "answer"])
hashes = st.dictionaries(fields, texts, max_size=4)
values = st.one_of(
    texts,
    st.lists(texts, min_size=1, max_size=5),
    st.frozensets(texts, min_size=1, max_size=5),
    hashes.filter(bool),
    hashes.map(lambda broken: RECORD | broken),
    texts.map(replay),
)
KEYS = (
    store.WHOLE.points(1), store.WHOLE.ledger(1), store.WHOLE.index(1), store.WHOLE.transaction(ID),
    store.WHOLE.idempotency(1, "k"),
)  # fmt: skip
states = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, values))


def put(client: Any, key: str, value: Any) -> None:
    if isinstance(value, bytes):
        client.set(key, value)
    elif isinstance(value, list):
        client.rpush(key, *value)
    elif isinstance(value, dict):
        client.hset(key, mapping=value)
    else:
        client.zadd(key, dict.fromkeys(value, 0))


@hypothesis.settings(max_examples=100)
@given(states)
@example({store.WHOLE.ledger(1): [b"{", b'{"points": 1}']})
@example({store.WHOLE.idempotency(1, "k"): replay(b"{")})
@example({store.WHOLE.idempotency(1, "k"): replay(b"null")})
@example({store.WHOLE.idempotency(1, "k"): replay(b'{"id": 5}')})
@example(
    {
        store.WHOLE.index(1): frozenset({MEMBER.encode()}),
        store.WHOLE.transaction(ID): RECORD | {"user_id": "2"},
    }
)
def test_no_data_in_redis_causes_a_500(redis_port: int, state: dict[str, Any]) -> None:
    """Broken data is skipped or reported as unreadable, and every next_cursor works."""
    api = Client(create_app(settings(redis_port)))
    with redis.Redis(port=redis_port) as client:
        client.flushall()
        for key, value in state.items():
            put(client, key, value)
    read = [*pages(api, "/"), *pages(api, "/loyalty")]
    listed = [one["user_id"] for page in read for one in page.json.get("transactions", ())]
    assert set(listed) <= {1}
    read.append(api.simulate_get(f"/{ID}", headers=bearer()))
    assert {result.status_code for result in read} <= {200, 404, 503}
    paid = pay(api, **{"Idempotency-Key": "k"})
    assert paid.status_code in {202, 409, 422, 503}
    for result in (*read, paid):
        json.loads(result.text, parse_constant=pytest.fail)
