from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.crc import key_slot

from services.common import scripts, store
from services.common.transaction import FINAL
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector import saver
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.queue import Queue
from services.psp_connector.records import FinalResult, RetryResult
from services.psp_connector.sweep import Sweep
from tests.psp_connector.payments import FakePsp, Payments, running, take, take_over
from tests.support import wait_until

COUNT = 16


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[scripts.ScriptCall]:
    """Records all script calls."""
    found: list[scripts.ScriptCall] = []
    run_scripts = scripts.run_scripts

    def record(client: Any, calls: Sequence[scripts.ScriptCall], replicas_min: int = 0) -> Any:
        found.extend(calls)
        return run_scripts(client, calls, replicas_min)

    monkeypatch.setattr(scripts, "run_scripts", record)
    return found


@hypothesis_settings(max_examples=20)
@given(user_id=st.integers(0, 10**15 - 1), key=st.none() | st.text("{}ab:", min_size=1))
def test_every_key_of_every_script_of_a_merchant_has_one_slot(
    client: Any,
    payments: Payments,
    calls: list[scripts.ScriptCall],
    user_id: int,
    key: str | None,
) -> None:
    """The keys from accept to replay share a slot, even with braces in an Idempotency-Key."""
    client.flushall()
    calls.clear()
    partitions = store.partitions(COUNT)
    partition = store.partition_of(user_id, partitions)
    transactions = Transactions(client, 10**6, partitions)
    queue = payments.queue("one", partition)
    request = TransactionRequest(amount=1250, currency="USD")
    retried = transactions.accept(user_id, request, "req", key).transaction_id
    queue.save([(take(queue)[0], RetryResult("HTTP 500", 0))])
    assert queue.promote() == 1
    [work] = take(queue)
    assert work.charge.transaction_id == retried
    queue.save([(work, FinalResult("failed", reason="for the test"))])
    letters = DeadLetters(client, partitions)
    [(letter_id, _)] = letters.all()
    assert letters.replay(letter_id) == "done"
    queue.read(1)
    assert [work.charge.transaction_id for work in take_over(queue)] == [retried]
    client.xadd(partition.queue, {"no": "entry"})
    assert take(queue) == []
    client.xgroup_delconsumer(partition.queue, store.GROUP, queue.name)
    assert Sweep(client, partitions).step() == [retried]
    queue.leave()
    assert len({script for script, _, _ in calls}) == len(SCRIPTS)
    assert {key_slot(name.encode()) for _, keys, _ in calls for name in keys} == {
        key_slot(b"p%d" % partition.number)
    }
    stored = {name for name in client.scan_iter() if name != store.COUNT_KEY}
    assert {key_slot(name.encode()) for name in stored} == {key_slot(b"p%d" % partition.number)}


SCRIPTS = (
    "accept", "begin", "claim", "create_group", "dead_letter", "finish", "promote",
    "remove_consumer", "renew", "replay", "retry", "set_aside", "sweep",
)  # fmt: skip


def test_a_merchant_stays_in_its_partition() -> None:
    """The mapping never changes, because stored data depend on it."""
    partitions = store.partitions(COUNT)
    found = [store.partition_of(user_id, partitions).number for user_id in (0, 1, 2, 3, 10**15 - 1)]
    assert found == [1, 7, 13, 11, 14]
    assert store.partitions(1) == (store.WHOLE,)
    assert store.WHOLE.queue == "queue", "as in data from before there were partitions"


def test_a_broken_partition_does_not_delay_others(
    client: Any, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has more unsaved results than there are slots; another has lost its queue."""
    monkeypatch.setattr(saver, "_TRIES_MAX", 10_000)  # no slot is free because one was given up
    partitions = store.partitions(3)
    transactions = Transactions(client, 10**6, partitions)
    request = TransactionRequest(amount=1250, currency="USD")
    users = {store.partition_of(user_id, partitions): user_id for user_id in range(20)}
    unsaved, gone, well = (users[partition] for partition in partitions)
    for _ in range(20):
        transactions.accept(unsaved, request, "req", None)
    client.set(partitions[0].ledger(unsaved), "no list")
    client.set(partitions[1].queue, "no stream")
    psp = FakePsp()
    with running(payments.connector(psp, partitions=partitions, concurrency=1)):
        wait_until(lambda: psp.calls, what="a call whose result cannot be saved")
        ids = [transactions.accept(well, request, "req", None).transaction_id for _ in range(20)]
        wait_until(
            lambda: {client.hget(partitions[2].transaction(i), "status") for i in ids} <= FINAL,
            seconds_max=5,
        )
        assert len(psp.calls) == 21, "the broken one starts no more than its slots"
        client.delete(partitions[0].ledger(unsaved), partitions[1].queue)
        late = transactions.accept(gone, request, "req", None).transaction_id
        wait_until(lambda: client.xlen(partitions[0].queue) == 0, what="the first one's results")
        key = partitions[1].transaction(late)
        wait_until(lambda: client.hget(key, "status") == "captured", what="the second one's queue")
    assert client.llen(partitions[0].ledger(unsaved)) == 20


def test_stalled_partitions_do_not_delay_the_end(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 partitions whose Redis stalls end within the time of one, not one after another."""
    monkeypatch.setattr(Queue, "leave", lambda _queue: time.sleep(2))
    connector = payments.connector(FakePsp(), partitions=store.partitions(COUNT))
    started = time.monotonic()
    connector.drain(0)
    assert time.monotonic() - started < 2


def test_a_broken_partition_keeps_no_orphan_of_another(client: Any, payments: Payments) -> None:
    """The sweep skips records of a partition whose queue is not a stream."""
    partitions = store.partitions(2)
    transactions = Transactions(client, 10**6, partitions)
    request = TransactionRequest(amount=1250, currency="USD")
    users = {store.partition_of(user_id, partitions): user_id for user_id in range(20)}
    for _ in range(50):
        transactions.accept(users[partitions[0]], request, "req", None)
    client.set(partitions[0].queue, "no stream")
    orphan = transactions.accept(users[partitions[1]], request, "req", None).transaction_id
    client.delete(partitions[1].queue)
    payments.queue("one", partitions[1])
    assert Sweep(client, partitions).step() == [orphan]
