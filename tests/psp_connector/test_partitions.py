from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.crc import key_slot

from services.common import store
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.queue import Queue
from services.psp_connector.results import FinalResult, RetryResult
from services.psp_connector.sweep import Sweep
from tests.psp_connector.fakes import take, take_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.psp_connector.settings import ConnectorSettings

COUNT = 16


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[store.ScriptCall]:
    """All calls of scripts."""
    found: list[store.ScriptCall] = []
    run_scripts = store.run_scripts

    def record(client: Any, calls: Sequence[store.ScriptCall]) -> Any:
        found.extend(calls)
        return run_scripts(client, calls)

    monkeypatch.setattr(store, "run_scripts", record)
    return found


@hypothesis_settings(max_examples=20)
@given(user_id=st.integers(0, 10**15 - 1), key=st.none() | st.text("{}ab:", min_size=1))
def test_every_key_of_every_script_of_a_merchant_has_one_slot(
    client: Any,
    settings: ConnectorSettings,
    calls: list[store.ScriptCall],
    user_id: int,
    key: str | None,
) -> None:
    """From accepting to replay, also with braces in an Idempotency-Key."""
    client.flushall()
    calls.clear()
    partitions = store.partitions(COUNT)
    partition = store.partition_of(user_id, partitions)
    transactions = Transactions(client, 10**6, partitions)
    queue = Queue(client, settings, "one", partition)
    queue.join()
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
    assert {key_slot(name.encode()) for name in client.scan_iter()} == {
        key_slot(b"p%d" % partition.number)
    }


SCRIPTS = (
    "accept", "begin", "claim", "dead_letter", "finish", "promote", "remove_consumer", "replay",
    "retry", "set_aside", "sweep",
)  # fmt: skip


def test_a_merchant_stays_in_its_partition() -> None:
    """Stored data depend on it."""
    partitions = store.partitions(COUNT)
    found = [store.partition_of(user_id, partitions).number for user_id in (0, 1, 2, 3, 10**15 - 1)]
    assert found == [1, 7, 13, 11, 14]
    assert store.partitions(1) == (store.WHOLE,)
    assert store.WHOLE.queue == "queue", "as in data from before there were partitions"
