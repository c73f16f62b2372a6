"""Connectors that die, freeze, stop or share the work."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from services.common import store
from services.psp_connector.psp import Captured, Transient
from services.psp_connector.queue import LEASE_SECONDS, Queue
from services.psp_connector.records import FinalResult, RetryResult
from tests.psp_connector.fakes import FakePsp, take, take_over
from tests.psp_connector.loop import ended, make, nothing_left, record, running, slowly
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.psp_connector.psp import Charge, Outcome
    from services.psp_connector.settings import ConnectorSettings

    Accept = Callable[..., str]


def test_a_dead_connectors_work_is_taken_over(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """When its lease is gone, its entries go to another, and nothing is credited twice."""
    ids = [accept() for _ in range(3)]
    dead = Queue(client, settings, "dead")
    dead.join()
    assert len(take(dead, 10)) == 3
    client.delete(store.WHOLE.lease("dead"))  # what LEASE_SECONDS without renewal do
    with running(make(client, settings, FakePsp(), "alive")):
        wait_until(lambda: ended(client, *ids))
        wait_until(lambda: consumer_names(client) == {"alive"}, what="removal of the dead consumer")
    assert {record(client, i)["status"] for i in ids} == {"captured"}
    assert int(client.get(store.WHOLE.points(1))) == 36


def test_abandoned_entries_are_reclaimed_under_load(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """With a slot hardly ever free, what a dead connector held is taken over all the same."""
    for _ in range(1500):
        accept()
    psp, dead = FakePsp(slowly), Queue(client, settings, "dead")
    dead.join()
    with running(make(client, settings, psp, "alive")):
        wait_until(lambda: len(psp.calls) > 20, what="load")
        (work,) = wait_until(lambda: dead.begin(dead.assign([], {"1": 1})))
        client.delete(store.WHOLE.lease("dead"))
        wait_until(lambda: ended(client, work.charge.transaction_id), what="take-over")
        assert client.xlen(store.WHOLE.queue) > 100, "the rest is still waiting"


def consumer_names(client: Any) -> set[str]:
    return {c["name"] for c in client.xinfo_consumers(store.WHOLE.queue, store.GROUP)}


def test_a_live_but_slow_connector_is_left_alone(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """While a connector renews its lease, its entries are left alone however long calls take."""
    accept()
    slow = Queue(client, settings, "slow")
    slow.join()
    assert len(take(slow, 10)) == 1
    other = Queue(client, settings, "other")
    other.join()
    assert take_over(other) == []
    assert LEASE_SECONDS >= client.ttl(store.WHOLE.lease("slow")) > 0


def test_a_connector_thought_dead_does_no_harm(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """A connector that outlived its lease can neither retry nor finish what another finished."""
    transaction_id = accept()
    late, other = Queue(client, settings, "late"), Queue(client, settings, "other")
    late.join()
    other.join()
    [work] = take(late, 1)
    client.delete(store.WHOLE.lease("late"))
    taken = wait_until(lambda: take_over(other))
    retry, captured = RetryResult("HTTP 500", 0), FinalResult("captured", points=12)
    assert late.save([(work, retry)]) == [False]
    assert other.save([(taken[0], captured)]) == [True]
    assert late.save([(work, captured), (work, retry)]) == [False, False]
    assert int(client.get(store.WHOLE.points(1))) == 12
    assert record(client, transaction_id)["status"] == "captured"
    assert nothing_left(client)


def test_an_attempt_that_broke_off_is_found(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """An own entry that is not in flight is reclaimed."""
    bad: Any = "no number"

    def answer(charge: Charge, call: int) -> Outcome:
        return Transient("HTTP 500", bad) if call == 1 else Captured(charge.transaction_id)

    transaction_id = accept()
    with running(make(client, settings, FakePsp(answer))):
        wait_until(lambda: ended(client, transaction_id))
    assert record(client, transaction_id)["status"] == "captured"


def test_two_connectors_share_the_work(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """Each transaction is charged by one of them, also one that the other has set aside."""
    first, second = FakePsp(slowly), FakePsp(slowly)
    ids = [accept() for _ in range(60)]
    with running(make(client, settings, first)), running(make(client, settings, second, "two")):
        wait_until(lambda: ended(client, *ids), seconds_max=20)
    assert first.calls.total() + second.calls.total() == 60
    assert first.calls
    assert second.calls


def test_stopping_finishes_calls_in_flight(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """After `stop` nothing is taken; what was taken ends; the lease is given back."""
    entered, go_on = threading.Event(), threading.Event()

    def slow(charge: Any, _call: int) -> Captured:
        entered.set()
        assert go_on.wait(10)
        return Captured(charge.transaction_id)

    first = accept()
    connector = make(client, settings, FakePsp(slow))
    loop = threading.Thread(target=connector.run)
    loop.start()
    assert entered.wait(10)
    connector.stop()
    loop.join(10)
    second = accept()
    go_on.set()
    assert connector.drain(5) == 0
    assert record(client, first)["status"] == "captured"
    assert record(client, second)["status"] == "queued"
    assert not client.exists(store.WHOLE.lease("one"))
    assert consumer_names(client) == set()


def test_a_flushed_redis_is_joined_again(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """When stream and group are gone the connector makes them again by itself."""
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: client.exists(store.WHOLE.lease("one")))
        client.flushall()
        transaction_id = accept()
        wait_until(lambda: ended(client, transaction_id))
