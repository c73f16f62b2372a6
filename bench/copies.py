"""Fills Redis fast: one transaction is accepted normally and copied inside Redis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from services.common import store
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Callable

USER_ID = 1
_PER_CALL_MAX = 5_000
"""Copies per script call, so that Redis can serve other clients between calls."""


def copy_id(number: int) -> str:
    """The id of a copy."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def queued(client: store.Client, count: int, user_id: int = USER_ID) -> None:
    """Puts `count` transactions into the queue."""
    original = _accepted(client, user_id)
    # Read before the first script call, after which the last entry is a copy.
    fields = client.xrevrange(store.QUEUE, count=1)[0][1]
    entry = json.dumps([word for field in fields.items() for word in field])
    _copy(client, user_id, original, count - 1, entry=entry)


def finished(
    client: store.Client, count: int, finish: Callable[[], object], user_id: int = USER_ID
) -> None:
    """Stores `count` captured transactions; `finish` gets the first one in the queue."""
    original = _accepted(client, user_id)
    finish()
    credit = client.lindex(store.ledger_key(user_id), -1)
    _copy(client, user_id, original, count - 1, credit=credit)


def _accepted(client: store.Client, user_id: int) -> str:
    wanted = TransactionRequest(amount=1250, currency="USD")
    answer = Transactions(client, 10**9).accept(user_id, wanted, "bench", None).response
    return str(json.loads(answer)["id"])


def _copy(
    client: store.Client, user_id: int, original: str, count: int, entry: str = "", credit: str = ""
) -> None:
    member = client.zrevrangebylex(store.index_key(user_id), "+", "-", start=0, num=1)[0]
    copy = client.register_script(store.script(__file__, "copies.lua"))
    keys = [
        store.transaction_key(original), store.index_key(user_id), store.QUEUE,
        store.ledger_key(user_id),
    ]  # fmt: skip
    for number in range(0, count, _PER_CALL_MAX):
        batch = min(_PER_CALL_MAX, count - number)
        copy(keys=keys, args=[original, member, number, batch, entry, credit])
