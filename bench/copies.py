"""Fills Redis fast: one transaction is accepted normally and copied inside Redis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from services.common import scripts, store
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


def queued(client: store.Client, count: int) -> None:
    """Puts `count` transactions into the queue."""
    original = _accepted(client)
    [(_, fields)] = client.xrange(store.WHOLE.queue)
    entry = json.dumps([word for field in fields.items() for word in field])
    _copy(client, original, count - 1, entry=entry)


def finished(client: store.Client, count: int, finish: Callable[[], object]) -> None:
    """Stores `count` captured transactions; `finish` gets the first one in the queue."""
    original = _accepted(client)
    finish()
    credit = client.lindex(store.WHOLE.ledger(USER_ID), -1)
    _copy(client, original, count - 1, credit=credit)


def _accepted(client: store.Client) -> str:
    request = TransactionRequest(amount=1250, currency="USD")
    response = Transactions(client, 10**9).accept(USER_ID, request, "bench", None).response
    return str(json.loads(response)["id"])


def _copy(
    client: store.Client, original: str, count: int, entry: str = "", credit: str = ""
) -> None:
    [member] = client.zrange(store.WHOLE.index(USER_ID), 0, -1)
    copy = client.register_script(scripts.script(__file__, "copies.lua").text)
    keys = [
        store.WHOLE.transaction(original), store.WHOLE.index(USER_ID), store.WHOLE.queue,
        store.WHOLE.ledger(USER_ID),
    ]  # fmt: skip
    for number in range(0, count, _PER_CALL_MAX):
        batch = min(_PER_CALL_MAX, count - number)
        copy(keys=keys, args=[original, member, number, batch, entry, credit])
