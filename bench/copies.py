"""Fills Redis fast: one transaction is accepted normally and copied inside Redis."""

import json
from collections.abc import Callable
from typing import Any

from services.common import store
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions

USER_ID = 1
_PER_CALL_MAX = 1_000
"""Copies per round trip, so that Redis can serve other clients between them."""


def copy_id(number: int) -> str:
    """The id of a copy."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def queued(client: store.Client, count: int) -> None:
    """Puts `count` transactions into the queue."""
    original = _accepted(client)
    [(first, fields)] = client.xrange(store.WHOLE.queue)

    def add(pipeline: Any, number: int, new: str) -> None:
        entry = f"{first.partition('-')[0]}-{number + 1}"
        pipeline.xadd(store.WHOLE.queue, {**fields, "transaction_id": new}, id=entry)
        pipeline.hset(store.WHOLE.transaction(new), "entry", entry)

    _copy(client, original, count - 1, add)


def finished(client: store.Client, count: int, finish: Callable[[], object]) -> None:
    """Stores `count` captured transactions; `finish` gets the first one in the queue."""
    original = _accepted(client)
    finish()
    ledger = store.WHOLE.ledger(USER_ID)
    credit = client.lindex(ledger, -1)

    def add(pipeline: Any, _number: int, new: str) -> None:
        pipeline.rpush(ledger, credit.replace(original, new))

    _copy(client, original, count - 1, add)


def _accepted(client: store.Client) -> str:
    request = TransactionRequest(amount=1250, currency="USD")
    response = Transactions(client, 10**9).accept(USER_ID, request, "bench", None).response
    return str(json.loads(response)["id"])


def _copy(
    client: store.Client, original: str, count: int, add: Callable[[Any, int, str], None]
) -> None:
    """Copies record and place in the index; `add` adds a copy's other writes to the pipeline."""
    index, record = store.WHOLE.index(USER_ID), store.WHOLE.transaction(original)
    [member] = client.zrange(index, 0, -1)
    for start in range(0, count, _PER_CALL_MAX):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, min(start + _PER_CALL_MAX, count)):
            new = copy_id(number)
            pipeline.copy(record, store.WHOLE.transaction(new))
            pipeline.hset(store.WHOLE.transaction(new), "id", new)
            pipeline.zadd(index, {member.replace(original, new): 0})
            add(pipeline, number, new)
        pipeline.execute()
