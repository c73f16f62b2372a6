from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from services.common import store
from services.common.transaction import FINAL, Transaction
from services.psp_connector import connector
from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import Breaker
from services.psp_connector.connector import PROMOTE_SECONDS, Connector
from services.psp_connector.psp import Captured, Declined, Refused, Transient
from services.psp_connector.queue import LEASE_SECONDS, Queue
from services.psp_connector.results import FinalResult, RetryResult
from tests.psp_connector.fakes import FakePsp, take, take_over
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.psp_connector.psp import PSP, Charge, Outcome
    from services.psp_connector.settings import ConnectorSettings

    Accept = Callable[..., str]


def make(client: Any, settings: ConnectorSettings, psp: PSP, name: str = "one") -> Connector:
    return Connector(
        Queue(client, settings, name),
        psp,
        Breaker(4, Backoff(0.01, 0.1)),
        Backoff(settings.psp_backoff_seconds, 0.05),
        concurrency=4,
        attempts_max=settings.psp_attempts_max,
        sleep=lambda seconds: time.sleep(seconds / 50),
    )


@contextlib.contextmanager
def running(connector: Connector) -> Iterator[Connector]:
    thread = threading.Thread(target=connector.run)
    thread.start()
    try:
        yield connector
    finally:
        connector.stop()
        thread.join(10)
        connector.drain(5)


def record(client: Any, transaction_id: str) -> dict[str, Any]:
    found = client.hgetall(store.transaction_key(transaction_id))
    return Transaction.model_validate(found).model_dump(exclude_none=True)


def ended(client: Any, *ids: str) -> bool:
    return all(record(client, i)["status"] in FINAL for i in ids)


def nothing_left(client: Any) -> bool:
    return not client.xlen(store.QUEUE) and not client.zcard(store.RETRIES)


def slowly(charge: Charge, _call: int) -> Captured:
    time.sleep(0.02)
    return Captured(f"pi_{charge.transaction_id}")


@pytest.mark.parametrize(
    ("amount", "currency", "points"),
    [
        (1250, "USD", 12),
        (500, "JPY", 500),
        (1250, "BHD", 1),
        (99, "USD", 0),
        (5, "ISK", 5),
        (1200, "MGA", 12),
        (19_999, "CLF", 1),
    ],
)
def test_a_captured_transaction_earns_its_points(
    client: Any,
    settings: ConnectorSettings,
    accept: Accept,
    amount: int,
    currency: str,
    points: int,
) -> None:
    """One point for each whole major unit; record, points and ledger agree."""
    transaction_id = accept(amount=amount, currency=currency)
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: ended(client, transaction_id))
    found = record(client, transaction_id)
    assert ("captured", 1, points) == (found["status"], found["attempts"], found["loyalty_points"])
    assert f"pi_{transaction_id}" == found["psp_reference"]
    assert [e["event"] for e in found["timeline"]] == ["queued", "processing", "captured"]
    assert points == int(client.get(store.points_key(1)) or 0)
    ledger = [json.loads(entry) for entry in client.lrange(store.ledger_key(1), 0, -1)]
    assert ([transaction_id] if points else []) == [entry["transaction_id"] for entry in ledger]
    assert nothing_left(client)


def test_a_declined_card_is_not_tried_again(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """`declined` with the decline code, in the log too; no points, one call."""
    psp = FakePsp(lambda _charge, _call: Declined("insufficient_funds", "pi_1"))
    transaction_id = accept()
    with capture_logs() as logs, running(make(client, settings, psp)):
        wait_until(lambda: ended(client, transaction_id))
    [attempt] = [line for line in logs if line["event"] == "attempt"]
    assert attempt["decline_code"] == "insufficient_funds"
    found = record(client, transaction_id)
    assert (found["status"], found["decline_code"]) == ("declined", "insufficient_funds")
    assert psp.calls[transaction_id] == 1
    assert client.get(store.points_key(1)) is None
    assert client.xlen(store.DEADLETTERS) == 0


def test_what_the_psp_refuses_fails_with_a_dead_letter(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """A request the PSP will never take is `failed` at once, with the reason."""
    transaction_id = accept()
    with running(make(client, settings, FakePsp(lambda *_: Refused("HTTP 400 nope")))):
        wait_until(lambda: ended(client, transaction_id))
    assert record(client, transaction_id)["status"] == "failed"
    [(_, letter)] = client.xrange(store.DEADLETTERS)
    assert (transaction_id, "refused by the PSP: HTTP 400 nope") == (
        letter["transaction_id"], letter["reason"],
    )  # fmt: skip


def test_transient_failures_are_tried_again(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """Back to `queued` with the next attempt on the timeline, then captured."""
    psp = FakePsp(lambda c, call: Captured(c.transaction_id) if call > 2 else Transient("HTTP 500"))
    transaction_id = accept()
    with running(make(client, settings, psp)):
        wait_until(lambda: ended(client, transaction_id))
    found = record(client, transaction_id)
    assert (found["status"], found["attempts"]) == ("captured", 3)
    assert ["queued", *["processing", "retry"] * 2, "processing", "captured"] == [
        e["event"] for e in found["timeline"]
    ]
    retry = found["timeline"][2]
    assert retry["reason"] == "HTTP 500"
    assert retry["next_attempt_at"] >= retry["at"]
    assert nothing_left(client)


def test_attempts_are_bounded(client: Any, settings: ConnectorSettings, accept: Accept) -> None:
    """After PSP_ATTEMPTS_MAX calls it has failed, and lies in the dead letters."""
    psp = FakePsp(lambda *_: Transient("HTTP 503"))
    transaction_id = accept()
    with running(make(client, settings, psp)):
        wait_until(lambda: ended(client, transaction_id))
    assert psp.calls[transaction_id] == 3
    [(_, letter)] = client.xrange(store.DEADLETTERS)
    assert letter["reason"] == "given up after 3 attempts: HTTP 503"
    assert nothing_left(client)


def test_a_psp_that_is_down_costs_no_attempts(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """The breaker opens after a few failures; all are captured when the PSP is back."""
    psp = FakePsp()
    psp.up = False
    ids = [accept() for _ in range(30)]
    with running(make(client, settings, psp)):
        wait_until(lambda: psp.probes >= 5)
        down_calls = psp.calls.total()
        psp.up = True
        wait_until(lambda: ended(client, *ids))
    assert {record(client, i)["status"] for i in ids} == {"captured"}
    # Five in a row open it; what was in hand then comes to its own end.
    assert down_calls <= 5 + 4
    assert dict.fromkeys(ids, 1) == dict(psp.captured)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"hello": "world"}, "not an entry of this queue"),
        ({"transaction_id": "no-uuid"}, "not an entry of this queue"),
        ({"transaction_id": ""}, "not an entry of this queue"),
        ({"text": "x" * 1_000_000}, "not an entry of this queue"),
        ({"transaction_id": "00000000-0000-4000-8000-000000000000"}, "unknown transaction"),
    ],
)
def test_an_unreadable_entry_goes_to_the_dead_letters(
    client: Any, settings: ConnectorSettings, accept: Accept, entry: dict[str, Any], reason: str
) -> None:
    """It is put away with the reason, cut short, and the one behind it is worked on."""
    client.xadd(store.QUEUE, entry)
    good = accept()
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: ended(client, good) and client.xlen(store.DEADLETTERS))
    [(_, letter)] = client.xrange(store.DEADLETTERS)
    assert reason == letter["reason"]
    assert len(letter["entry"]) <= 1000
    assert nothing_left(client)


def test_an_entry_for_an_ended_transaction_goes_to_the_dead_letters(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """A final status never changes: the entry is put away, the record stays as it was."""
    transaction_id = accept()
    psp = FakePsp()
    with running(make(client, settings, psp)):
        wait_until(lambda: ended(client, transaction_id))
        before = record(client, transaction_id)
        client.xadd(store.QUEUE, {"transaction_id": transaction_id})
        wait_until(lambda: client.xlen(store.DEADLETTERS))
    [(_, letter)] = client.xrange(store.DEADLETTERS)
    assert letter["reason"] == "transaction is captured already"
    assert before == record(client, transaction_id)
    assert psp.calls[transaction_id] == 1


def test_a_dead_connectors_work_is_taken_over(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """When its lease is gone, its entries go to another, and nothing is credited twice."""
    ids = [accept() for _ in range(3)]
    dead = Queue(client, settings, "dead")
    dead.join()
    assert len(take(dead, 10)) == 3
    client.delete(store.lease_key("dead"))  # what LEASE_SECONDS without renewal do
    with running(make(client, settings, FakePsp(), "alive")):
        wait_until(lambda: ended(client, *ids))
        wait_until(lambda: consumer_names(client) == {"alive"}, what="removal of the dead one")
    assert {record(client, i)["status"] for i in ids} == {"captured"}
    assert int(client.get(store.points_key(1))) == 36


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
        client.delete(store.lease_key("dead"))
        wait_until(lambda: ended(client, work.charge.transaction_id), what="take-over")
        assert client.xlen(store.QUEUE) > 100, "the rest is still waiting"


def consumer_names(client: Any) -> set[str]:
    return {c["name"] for c in client.xinfo_consumers(store.QUEUE, store.GROUP)}


def test_a_live_but_slow_connector_is_left_alone(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """While its lease is renewed nobody takes its entries, however long they take."""
    accept()
    slow = Queue(client, settings, "slow")
    slow.join()
    assert len(take(slow, 10)) == 1
    other = Queue(client, settings, "other")
    other.join()
    assert take_over(other) == []
    assert LEASE_SECONDS >= client.ttl(store.lease_key("slow")) > 0


def test_a_connector_thought_dead_does_no_harm(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """Whoever is too slow for its lease can neither retry nor finish what another finished."""
    transaction_id = accept()
    late, other = Queue(client, settings, "late"), Queue(client, settings, "other")
    late.join()
    other.join()
    [work] = take(late, 1)
    client.delete(store.lease_key("late"))
    taken = wait_until(lambda: take_over(other))
    retry, captured = RetryResult("HTTP 500", 0), FinalResult("captured", points=12)
    assert late.save([(work, retry)]) == [False]
    assert other.save([(taken[0], captured)]) == [True]
    assert late.save([(work, captured), (work, retry)]) == [False, False]
    assert int(client.get(store.points_key(1))) == 12
    assert record(client, transaction_id)["status"] == "captured"
    assert nothing_left(client)


def test_an_attempt_that_broke_off_is_found(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """Its entry is among this connector's own, and in nobody's hands."""
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


def test_stopping_finishes_what_is_in_hand(
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
    assert not client.exists(store.lease_key("one"))
    assert consumer_names(client) == set()


def test_a_flushed_redis_is_joined_anew(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """When stream and group are gone the connector makes them again by itself."""
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: client.exists(store.lease_key("one")))
        client.flushall()
        transaction_id = accept()
        wait_until(lambda: ended(client, transaction_id))


def test_finished_things_have_a_lifetime(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """A finished record expires after FINISHED_DAYS, and its place in the index goes with it."""
    client.zadd(store.index_key(1), {"0000000000001:of-long-ago": 0})
    transaction_id = accept()
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: ended(client, transaction_id))
    days = settings.finished_days * 86_400
    assert days - 60 < client.ttl(store.transaction_key(transaction_id)) <= days
    assert client.zcard(store.index_key(1)) == 1


@pytest.mark.parametrize(("late_seconds", "waits"), [(5.0, True), (PROMOTE_SECONDS, False)])
def test_a_due_retry_waits_for_a_spare_slot_but_not_for_ever(
    client: Any,
    settings: ConnectorSettings,
    accept: Accept,
    monkeypatch: pytest.MonkeyPatch,
    late_seconds: float,
    *,
    waits: bool,
) -> None:
    """In the queue it would be ahead of fresh payments of others that arrive meanwhile."""
    monkeypatch.setattr(connector, "_PROMOTE_LATE_SECONDS", late_seconds)
    release = threading.Event()

    def answer(_charge: Charge, _call: int) -> Captured:
        release.wait(10)
        return Captured("pi")

    psp = FakePsp(answer)
    with running(make(client, settings, psp)):
        busy = [accept(user_id) for user_id in (1, 2, 3, 4)]
        wait_until(lambda: set(busy) == set(psp.calls))
        retried = accept(5)
        client.xdel(store.QUEUE, client.hget(store.transaction_key(retried), "entry"))
        client.zadd(store.RETRIES, {retried: 0})
        time.sleep(10 * PROMOTE_SECONDS)
        assert (client.zscore(store.RETRIES, retried) is not None) is waits
        release.set()
        wait_until(lambda: ended(client, retried))
