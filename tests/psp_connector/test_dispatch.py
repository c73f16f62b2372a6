import itertools
import time
import uuid
from collections.abc import Collection
from typing import Any

from services.common.store import GROUP
from services.psp_connector import dispatch
from services.psp_connector.dispatch import Dispatcher
from services.psp_connector.records import Work
from services.psp_connector.slots import Slots
from tests.psp_connector.payments import STORE, Payments, work


def join(payments: Payments, name: str) -> tuple[Slots, Dispatcher]:
    slots = Slots(lambda: 4)
    return slots, Dispatcher(payments.queue(name), slots, 4)


def ids(works: list[Work]) -> list[str]:
    return [work.charge.transaction_id for work in works]


def test_each_merchant_is_served_in_its_order_and_the_next_one_at_once(
    payments: Payments,
) -> None:
    """Behind a flood, another merchant's first payment starts at once.

    After the flood, the connector waits for new entries instead of polling for those set aside.
    """
    slots, dispatcher = join(payments, "one")
    flood = [payments.accept(2) for _ in range(300)]
    late = payments.accept(1)
    started: list[Work] = []
    for _turn in range(10):
        started += dispatcher.next()
    assert [*flood[:3], late] == ids(started)
    for _turn in range(120):
        if len(flood) < 310:  # arrives while earlier ones are set aside
            flood.append(payments.accept(2))
        slots.release(started)
        started += dispatcher.next()
    assert [*flood[:3], late, *flood[3:]] == ids(started)
    slots.release(started)
    began = time.monotonic()
    assert dispatcher.next() == []
    assert time.monotonic() - began > dispatch.BLOCK_MS / 2000


def test_merchants_take_turns(payments: Payments) -> None:
    """With more busy merchants than slots, each is served before any is served again."""
    slots, dispatcher = join(payments, "one")
    merchants = [str(user_id) for user_id in range(12)]
    for merchant in merchants:
        for _ in range(4):
            payments.accept(int(merchant))
    served: list[str] = []
    for _turn in range(4):
        works = dispatcher.next()
        served += [work.merchant for work in works]
        slots.release(works)
    assert served == merchants + merchants[:4]


def test_a_merchant_waits_one_round_behind_others_that_take_turns(payments: Payments) -> None:
    """Although each of them has nothing in flight when its entry is read."""
    slots, dispatcher = join(payments, "one")
    for n in range(240):
        payments.accept(n % 8)
    works, started = dispatcher.next(), list[Work]()
    late = payments.accept(99)
    for _turn in range(4):
        slots.release(works)
        works = dispatcher.next()
        started += works
    assert late in ids(started)


def test_a_burst_of_many_merchants_is_for_all_connectors(payments: Payments) -> None:
    """If each merchant has one entry, a connector reads only as many as it has slots."""
    slots, dispatcher = join(payments, "one")
    accepted = [payments.accept(n) for n in range(40)]
    started = dispatcher.next()
    slots.release(started)
    started += dispatcher.next()
    assert ids(started) == accepted[:8]
    assert len(payments.queue("other").read(100)) == 32


def test_an_idle_partition_claims_a_slot_for_a_new_entry(payments: Payments) -> None:
    """While another one has all slots; a connector with a free slot may take the entry first."""
    busy = Slots(lambda: 4)
    slots = busy.sibling()
    others = [work(str(n), str(n)) for n in range(4)]
    busy.occupy(others)
    dispatcher = Dispatcher(payments.queue("one"), slots, 4)
    transaction_id = payments.accept()
    assert dispatcher.next() == []
    assert "merchant:1" in payments.consumers()
    assert dispatcher.next() == []
    busy.release(others[:1])
    with busy.reserve({"5": 1}) as granted:
        assert not granted
    assert ids(dispatcher.next()) == [transaction_id]


def test_entries_that_it_left_are_claimed_again_if_no_other_has(payments: Payments) -> None:
    """In order, as when its PSP has recovered; then it waits for new entries without polling."""
    slots, dispatcher = join(payments, "one")
    accepted = [payments.accept(n // 2) for n in range(8)]
    started = dispatcher.next()
    dispatcher.leave()
    assert len(payments.queue("other").assign([], {"0": 1})) == 1
    for _turn in range(2):
        slots.release(started)
        started += dispatcher.next()
    assert ids(started) == accepted[::2] + accepted[3::2]
    slots.release(started)
    dispatcher.next()
    began = time.monotonic()
    assert dispatcher.next() == []
    assert time.monotonic() - began > dispatch.BLOCK_MS / 2000


def test_without_its_lease_it_forgets_waiting_entries(payments: Payments) -> None:
    """A connector then waits for new entries instead of polling for those of others."""
    _, dispatcher = join(payments, "one")
    for _ in range(4):
        payments.accept()
    dispatcher.next()
    dispatcher.forget()
    began = time.monotonic()
    assert dispatcher.next() == []
    assert time.monotonic() - began > dispatch.BLOCK_MS / 2000


def test_waiting_entries_are_not_abandoned(payments: Payments) -> None:
    """A connector that looks for abandoned entries leaves those in its own memory."""
    _, dispatcher = join(payments, "one")
    accepted = [payments.accept() for _ in range(4)]
    assert accepted[:3] == ids(dispatcher.next())
    dispatcher.reclaim()
    assert payments.queue("other").assign([], {"1": 10}) == []


def test_another_partition_may_take_the_last_slot_meanwhile(payments: Payments) -> None:
    """The entry then waits for a slot: reading none at all would be an error."""

    class Taken(Slots):
        frees = itertools.chain([1], itertools.repeat(0))
        free = property(lambda self: next(self.frees))

        def wait(self, waiting: Collection[str], seconds: float) -> None:
            pass

    payments.accept()
    slots = Taken(lambda: 4)
    assert Dispatcher(payments.queue("one"), slots, 4).next() == []


def test_without_a_free_slot_it_waits(payments: Payments) -> None:
    """A connector without free slots does not spin."""
    slots, dispatcher = join(payments, "one")
    for user_id in range(8):
        payments.accept(user_id)
    while slots.free:
        dispatcher.next()
    began = time.monotonic()
    turns = 5
    for _turn in range(turns):
        assert dispatcher.next() == []
    assert time.monotonic() - began > turns * 0.005


def test_a_connector_keeps_a_part_of_a_long_queue_and_leaves_all_of_it(
    client: Any, payments: Payments
) -> None:
    """However many merchants wait, a connector holds few entries and releases them all."""
    slots, dispatcher = join(payments, "one")
    for _more_than_its_share in range(5):
        payments.accept()
    pipeline = client.pipeline(transaction=False)
    for n in range(4500):
        entry = {"transaction_id": str(uuid.uuid4()), "user_id": 100 + n % 600}
        pipeline.xadd(STORE.queue, entry)
    pipeline.execute()
    for _turn in range(30):
        dispatcher.next()
    held = {c["name"]: c["pending"] for c in client.xinfo_consumers(STORE.queue, GROUP)}
    assert held["one"] <= dispatcher.held_max + len(slots.in_flight)
    dispatcher.leave()
    left = client.xpending_range(STORE.queue, GROUP, "-", "+", 100, consumername="one")
    assert {entry["message_id"] for entry in left} == slots.in_flight
