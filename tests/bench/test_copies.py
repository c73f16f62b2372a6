import json
from typing import Any

import pytest

from bench import copies
from services.common import store
from services.core_api.transactions import Transactions


@pytest.fixture(autouse=True)
def several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spreads the copies over several calls of the script."""
    monkeypatch.setattr(copies, "_PER_CALL_MAX", 4)


def test_copies_equal_their_original(client: Any) -> None:
    """Record, index, queue and API show each copy as if it had been accepted normally."""
    copies.queued(client, 10)
    records = Transactions(client, 1000).page(copies.USER_ID, 100, None).transactions
    assert len({record.id for record in records}) == 10
    assert [r.id for r in records][1:] == [copies.copy_id(n) for n in range(8, -1, -1)]
    assert len({record.model_copy(update={"id": ""}).to_json() for record in records}) == 1
    entries = [fields["transaction_id"] for _, fields in client.xrange(store.WHOLE.queue)]
    assert set(entries) == {record.id for record in records}


def test_copies_of_a_finished_transaction_have_its_credit(client: Any) -> None:
    """The ledger has a credit for each copy, and the queue has no entry."""

    def finish() -> None:
        (entry,) = client.xrange(store.WHOLE.queue)
        client.xdel(store.WHOLE.queue, entry[0])
        credit = json.dumps({"transaction_id": entry[1]["transaction_id"], "points": 12})
        client.rpush(store.WHOLE.ledger(copies.USER_ID), credit)

    copies.finished(client, 10, finish)
    ledger = map(json.loads, client.lrange(store.WHOLE.ledger(copies.USER_ID), 0, -1))
    assert len({credit["transaction_id"] for credit in ledger}) == 10
    assert client.xlen(store.WHOLE.queue) == 0
