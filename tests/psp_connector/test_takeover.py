"""Connectors that die, freeze, stop or share work."""

import threading
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.common import scripts
from services.common.store import LEASE_SECONDS
from services.psp_connector import lane
from services.psp_connector.psp import Captured, Charge, Outcome, Transient
from services.psp_connector.records import FinalResult, RetryResult, Work
from tests.psp_connector.payments import STORE, FakePsp, Payments, captured, take, take_over
from tests.support import wait_until


def test_abandoned_entries_are_reclaimed_under_load(client: Any, payments: Payments) -> None:
    """A dead connector's entries are reclaimed even if slots are hardly ever free."""
    for _ in range(1500):
        payments.accept()

    def slow(charge: Charge, call: int) -> Outcome:
        time.sleep(0.02)
        return captured(charge, call)

    psp, dead = FakePsp(slow), payments.queue("dead")
    with payments.running(psp, "alive"):
        wait_until(lambda: len(psp.calls) > 20, what="load")
        (work,) = wait_until(lambda: dead.begin(dead.assign([], {"1": 1})))
        client.delete(STORE.lease("dead"))  # what LEASE_SECONDS without renewal do
        payments.wait_ended(work.charge.transaction_id)
        assert client.xlen(STORE.queue) > 100, "the rest is still waiting"
        wait_until(lambda: "dead" not in payments.consumers(), what="removal of the dead consumer")


def test_an_attempt_that_broke_off_is_found(payments: Payments) -> None:
    """A connector reclaims its own entry that is not in flight."""
    bad: Any = "no number"

    def respond(charge: Charge, call: int) -> Outcome:
        return Transient("HTTP 500", bad) if call == 1 else Captured(charge.transaction_id)

    transaction_id = payments.accept()
    payments.end(FakePsp(respond), transaction_id)
    assert payments.record(transaction_id)["status"] == "captured"


def test_stopping_finishes_calls_in_flight(client: Any, payments: Payments) -> None:
    """After `stop` it takes nothing, finishes its calls, and releases the lease."""
    go_on = threading.Event()
    psp = FakePsp(lambda *_: Captured("pi") if go_on.wait(10) else Transient("too late"))
    first = payments.accept()
    connector = payments.connector(psp)
    loop = threading.Thread(target=connector.run)
    loop.start()
    wait_until(lambda: psp.calls)
    connector.stop()
    loop.join(10)
    second = payments.accept()
    go_on.set()
    assert connector.drain(5) == 0
    assert [payments.record(i)["status"] for i in (first, second)] == ["captured", "queued"]
    assert not client.exists(STORE.lease("one"))
    assert payments.consumers() == set()


def test_a_flushed_redis_is_joined_again(client: Any, payments: Payments) -> None:
    """The connector creates a missing stream and group again."""
    with payments.running(FakePsp()):
        wait_until(lambda: client.exists(STORE.lease("one")))
        client.flushall()
        payments.wait_ended(payments.accept())


@pytest.mark.parametrize("command", [("EXPIRE", 7200), ("PERSIST",)])
def test_a_lease_does_not_last_for_hours(
    client: Any, payments: Payments, command: tuple[Any, ...]
) -> None:
    """With the clock set back, or a lease written by hand, a dead connector would seem alive."""
    payments.accept()
    dead, other = payments.queue("dead"), payments.queue("other")
    take(dead, 1)
    client.execute_command(command[0], STORE.lease("dead"), *command[1:])
    assert take_over(other) == []
    assert 0 < client.pttl(STORE.lease("dead")) <= LEASE_SECONDS * 1000
    client.delete(STORE.lease("dead"))
    assert len(take_over(other)) == 1


def test_an_entry_is_reclaimed_once(
    client: Any, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two connectors that see the same dead one, the slower gets and logs nothing."""
    accepted = {payments.accept() for _ in range(4)}
    dead, quick, slow = (payments.queue(name) for name in ("dead", "quick", "slow"))
    take(dead)
    client.delete(STORE.lease("dead"))
    works: list[Work] = []
    with monkeypatch.context() as patch, capture_logs() as logs:

        def late(*call: Any) -> Any:
            """Moves the entries that `slow` has seen after `quick` has them already."""
            patch.undo()
            works.extend(take_over(quick))
            return scripts.run_script(*call)

        patch.setattr(scripts, "run_script", late)
        assert take_over(slow) == []
    assert {work.charge.transaction_id for work in works} == accepted
    assert [line["event"] for line in logs] == ["entry reclaimed"] * 4


def test_an_entry_that_another_connector_finished_leaves_no_dead_letter(
    client: Any, payments: Payments
) -> None:
    """A connector that lost its lease between reading and beginning does nothing."""
    payments.accept()
    slow, quick = payments.queue("slow"), payments.queue("quick")
    entries = slow.read(1)
    client.delete(STORE.lease("slow"))
    [work] = take_over(quick)
    assert quick.save([(work, FinalResult("captured"))]) == [True]
    with capture_logs() as logs:
        assert slow.begin(entries) == []
    assert (payments.letters(), [line["event"] for line in logs]) == ([], ["entry taken over"])


def test_a_late_renewal_releases_waiting_entries(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease expired in between, so another connector may have them."""
    monkeypatch.setattr(lane, "LEASE_SECONDS", 0)
    release = threading.Event()
    psp = FakePsp(lambda *_: Captured("pi") if release.wait(10) else Transient("too late"))
    for _ in range(4):  # of which 3 start
        payments.accept(2)
    payments.queue("another")
    with payments.running(psp):
        wait_until(lambda: "merchant:2" in payments.consumers(), seconds_max=5)
        release.set()


@pytest.mark.parametrize(
    "result", [*map(FinalResult, ("captured", "declined", "failed")), RetryResult("HTTP 503", 0)]
)
def test_a_retry_reopens_no_final_transaction(
    client: Any, payments: Payments, result: FinalResult | RetryResult
) -> None:
    """A second entry for it, written by hand, was charged beside the first, or scheduled twice."""
    transaction_id = payments.accept()
    client.xadd(STORE.queue, {"transaction_id": transaction_id})
    queue = payments.queue("one")
    first, second = take(queue)
    queue.save([(first, result)])
    saved = payments.record(transaction_id)
    queue.save([(second, RetryResult("HTTP 500", 0))])
    assert (payments.record(transaction_id), client.xlen(STORE.queue)) == (saved, 0)


def test_the_lease_survives_a_hanging_probe(
    client: Any, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connector renews its lease during a probe, however long it takes."""
    psp, release, probing = FakePsp(), threading.Event(), threading.Event()
    psp.up = False

    def hang() -> bool:
        if psp.probes:  # the first one finds it down
            probing.set()
            release.wait(10)
        return type(psp).is_available(psp)

    monkeypatch.setattr(psp, "is_available", hang)
    for _ in range(12):
        payments.accept()
    with payments.running(psp):
        assert probing.wait(10)
        client.delete(STORE.lease("one"))
        wait_until(lambda: client.exists(STORE.lease("one")), seconds_max=5, what="renewal")
        release.set()
