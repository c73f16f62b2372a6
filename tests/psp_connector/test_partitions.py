import time
from typing import Any

import pytest

from services.common import store
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector import connector, saver
from services.psp_connector.queue import Queue
from tests.psp_connector.payments import FakePsp, Payments
from tests.support import wait_until


def test_a_merchant_stays_in_its_partition() -> None:
    """The mapping never changes, because stored data depend on it."""
    partitions = store.partitions(16)
    numbers = [
        store.partition_of(user_id, partitions).number for user_id in (0, 1, 2, 3, 10**15 - 1)
    ]
    assert numbers == [1, 7, 13, 11, 14]
    assert store.partitions(1) == (store.WHOLE,)
    assert store.WHOLE.queue == "queue", "as in data from before there were partitions"


def test_a_broken_partition_does_not_delay_others(
    client: Any, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has more unsaved results than there are slots; another has lost its queue."""
    monkeypatch.setattr(saver, "_TRIES_MAX", 10_000)  # no slot is free because one was given up
    partitions = store.partitions(3)
    transactions = Transactions(client, 10**6, partitions)
    users = {store.partition_of(user_id, partitions): user_id for user_id in range(20)}

    request = TransactionRequest(amount=1250, currency="USD")

    def accept(number: int) -> str:
        """Accepts a payment; returns the key of its record."""
        accepted = transactions.accept(users[partitions[number]], request, "req", None)
        return partitions[number].transaction(accepted.transaction_id)

    def captured(key: str) -> bool:
        return bool(client.hget(key, "status") == "captured")

    unsaved = [accept(0) for _ in range(20)]
    ledger = partitions[0].ledger(users[partitions[0]])
    client.set(ledger, "no list")
    client.set(partitions[1].queue, "no stream")
    orphan = accept(2)
    client.delete(partitions[2].queue)
    psp = FakePsp()
    with payments.running(psp, partitions=partitions, concurrency=1):
        wait_until(lambda: psp.calls, what="a call whose result cannot be saved")
        others = [orphan, *[accept(2) for _ in range(20)]]
        wait_until(lambda: all(map(captured, others)), seconds_max=5, what="the third one's end")
        assert len(psp.calls) == 22, "the broken one starts no more than its slots"
        client.delete(ledger, partitions[1].queue)
        late = accept(1)
        wait_until(lambda: all(map(captured, [*unsaved, late])), what="the end of the repaired")
    assert client.llen(ledger) == 20


def test_stalled_partitions_do_not_delay_the_end(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 partitions whose Redis stalls end within the time of one, not one after another."""
    monkeypatch.setattr(Queue, "leave", lambda _queue: time.sleep(3))
    monkeypatch.setattr(connector, "_LEAVE_SECONDS", 0.5)
    stalled = payments.connector(FakePsp(), partitions=store.partitions(16))
    started = time.monotonic()
    stalled.drain(0)
    assert time.monotonic() - started < 6, "16 times 0.5 s"
