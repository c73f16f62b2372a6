"""What was written into Redis by hand: it stops no other payment, and nothing is lost by it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from services.common import store
from services.common.clock import now_ms, rfc3339
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.psp import Captured, Declined, Outcome, Refused, Transient
from services.psp_connector.queue import Queue
from services.psp_connector.sweep import Sweep
from tests.psp_connector.fakes import FakePsp, take
from tests.psp_connector.loop import ended, make, nothing_left, record, running
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.psp_connector.connector import Connector
    from services.psp_connector.psp import Charge
    from services.psp_connector.settings import ConnectorSettings

    Accept = Callable[..., str]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", "9" * 5000), ("amount", "many"), ("amount", "0"), ("amount", "-5"),
        ("amount", "1.5"), ("amount", None), ("attempts", "9223372036854775807"),
        ("attempts", "x"), ("attempts", "007"), ("attempts", None), ("currency", "usd"),
        ("currency", "XXX"), ("currency", None), ("user_id", "1" + "0" * 40),
        ("user_id", "1:points"), ("user_id", "01"),
        ("payment_method", "pm_" + "x" * 1_000_000), ("payment_method", "pm\r\nX: y"),
        ("timeline", None),
    ],
)  # fmt: skip
def test_a_broken_record_is_a_dead_letter_and_stops_no_other(
    client: Any, settings: ConnectorSettings, accept: Accept, field: str, value: str | None
) -> None:
    """It has failed, with the field as the reason; it was not charged, and the others were."""
    before, broken, after = accept(), accept(), accept()
    key = store.WHOLE.transaction(broken)
    client.hdel(key, field)
    if value is not None:
        client.hset(key, field, value)
    psp = FakePsp()
    with running(make(client, settings, psp)):
        wait_until(lambda: ended(client, before, after) and client.xlen(store.WHOLE.deadletters))
    [(_, letter)] = client.xrange(store.WHOLE.deadletters)
    assert letter["transaction_id"] == broken
    assert letter["reason"].startswith(f"unreadable record: {field} is ")
    assert len(letter["reason"]) < 100
    assert client.hget(key, "status") == "failed"
    assert {before: 1, after: 1} == dict(psp.calls)
    assert client.get(store.WHOLE.points(1)) == "24"
    assert nothing_left(client)


def test_a_charge_that_always_breaks_off_ends(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """An exception of our own uses up attempts like a failure of the PSP."""
    broken, good = accept(amount=666), accept()

    def answer(charge: Charge, _call: int) -> Outcome:
        if charge.amount == 666:
            raise ValueError("on purpose")
        return Captured("pi")

    with running(make(client, settings, FakePsp(answer))):
        wait_until(lambda: ended(client, broken, good))
    [(_, letter)] = client.xrange(store.WHOLE.deadletters)
    assert letter["reason"] == "given up after 3 attempts: ValueError in the connector"
    assert nothing_left(client)


@pytest.mark.parametrize(
    "output", ["\ud800", "x" * 3_000_000, "a\r\nb"], ids=["surrogate", "long", "lines"]
)
@pytest.mark.parametrize("outcome", [Captured, Declined, Refused, Transient])
def test_text_from_the_psp_is_stored_short_and_printable(
    client: Any, settings: ConnectorSettings, accept: Accept, outcome: Any, output: str
) -> None:
    """Whatever it sends: a result that cannot be saved would hold up those saved with it."""
    transaction_id = accept()
    with running(make(client, settings, FakePsp(lambda *_: outcome(output)))):
        wait_until(lambda: ended(client, transaction_id))
    stored = client.hgetall(store.WHOLE.transaction(transaction_id))
    assert all(len(value) < 2000 and value.isprintable() for value in stored.values())


@contextlib.contextmanager
def abandoned(connector: Connector) -> Iterator[None]:
    """Runs a connector that dies at the end: it waits for nothing that is in flight."""
    thread = threading.Thread(target=connector.run)
    thread.start()
    try:
        yield
    finally:
        connector.stop()
        thread.join(10)
        connector.drain(0)


KEYS = {
    "ledger": (store.WHOLE.ledger(1), "x"),
    "points": (store.WHOLE.points(1), "abc"),
    "points with a leading zero": (store.WHOLE.points(1), "007"),
    "negative zero": (store.WHOLE.points(1), "-0"),
    "too many points": (store.WHOLE.points(1), "9223372036854775807"),
    "index": (store.WHOLE.index(1), "x"),
    "retries": (store.WHOLE.retries, "x"),
    "dead letters": (store.WHOLE.deadletters, "x"),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("broken", KEYS)
def test_a_payment_goes_on_once_a_broken_key_is_repaired(
    client: Any, settings: ConnectorSettings, accept: Accept, broken: str, *, restarted: bool
) -> None:
    """Until then it is open and credits nothing; then it ends, and is credited once."""
    first, other = accept(1), accept(2)
    key, value = KEYS[broken]
    client.set(key, value)

    def answer(charge: Charge, call: int) -> Outcome:
        if charge.transaction_id == first and broken == "retries" and call == 1:
            return Transient("HTTP 500")
        if charge.transaction_id == first and broken == "dead letters":
            return Refused("HTTP 400")
        return Captured("pi")

    psp = FakePsp(answer)
    with contextlib.ExitStack() as stack:
        stack.enter_context(abandoned(make(client, settings, psp, "one")))
        wait_until(lambda: psp.calls[first] and psp.calls[other])
        if broken != "retries":  # a key of all merchants
            wait_until(lambda: ended(client, other))
        assert record(client, first)["status"] == "processing"
        assert value == client.get(key)
        if restarted:
            stack.close()
            stack.enter_context(abandoned(make(client, settings, psp, "two")))
        client.delete(key)
        wait_until(lambda: ended(client, first, other) and nothing_left(client))
    captured = broken != "dead letters"
    assert ("captured" if captured else "failed") == record(client, first)["status"]
    assert captured == client.llen(store.WHOLE.ledger(1))
    assert (12 if captured else 0) == int(client.get(store.WHOLE.points(1)) or 0)


def test_a_broken_dead_letter_stream_stops_no_other(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """An entry that has to go there waits for the repair; those behind it are captured."""
    client.set(store.WHOLE.deadletters, "x")
    client.xadd(store.WHOLE.queue, {"hello": "world"})
    good = accept()
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: ended(client, good))
        assert client.xlen(store.WHOLE.queue) == 1
        client.delete(store.WHOLE.deadletters)
        wait_until(lambda: nothing_left(client))
    [(_, letter)] = client.xrange(store.WHOLE.deadletters)
    assert letter["reason"] == "not an entry of this queue"


def by_delconsumer(client: Any, settings: ConnectorSettings) -> None:
    queue = Queue(client, settings, "another")
    queue.join()
    assert len(take(queue)) == 1
    client.xgroup_delconsumer(store.WHOLE.queue, store.GROUP, "another")


def by_setid(client: Any, settings: ConnectorSettings) -> None:
    Queue(client, settings, "another").join()
    client.xgroup_setid(store.WHOLE.queue, store.GROUP, "$")


def by_del(client: Any, _settings: ConnectorSettings) -> None:
    client.delete(store.WHOLE.queue)


def by_trimming(client: Any, _settings: ConnectorSettings) -> None:
    client.xtrim(store.WHOLE.queue, maxlen=0)


def by_forgetting_a_retry(client: Any, settings: ConnectorSettings) -> None:
    by_delconsumer(client, settings)
    client.hset(client.keys(store.WHOLE.transaction("*"))[0], "status", "queued")
    client.delete(store.WHOLE.retries)


@pytest.mark.parametrize(
    "lose", [by_delconsumer, by_setid, by_del, by_trimming, by_forgetting_a_retry]
)
def test_an_open_transaction_in_no_queue_is_found(
    client: Any,
    settings: ConnectorSettings,
    accept: Accept,
    lose: Callable[[Any, ConnectorSettings], None],
) -> None:
    """The sweep queues it again, once, however many look; it is captured, and nothing is left."""
    transaction_id = accept()
    lose(client, settings)
    waiting = accept()
    sweep = Sweep(client)
    Queue(client, settings, "one").join()
    assert [[transaction_id]] == list(sweep.look())
    assert [transaction_id] == sweep.step()
    assert Sweep(client).step() == []
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: ended(client, transaction_id, waiting) and nothing_left(client))
    assert client.get(store.WHOLE.points(1)) == "24"
    assert client.xlen(store.WHOLE.deadletters) == 0


def test_what_the_psp_may_have_forgotten_is_not_charged_again(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """In no queue, as after a restored backup, and older than a day: a dead letter."""
    transaction_id = accept()
    by_del(client, settings)
    created_at = rfc3339(now_ms() - 23 * 3_600_000 - 1000)
    client.hset(store.WHOLE.transaction(transaction_id), "created_at", created_at)
    psp = FakePsp()
    with running(make(client, settings, psp)):
        wait_until(lambda: ended(client, transaction_id))
    [(_, letter)] = client.xrange(store.WHOLE.deadletters)
    assert (transaction_id, True) == (letter["transaction_id"], "may have" in letter["reason"])
    assert not psp.calls


@pytest.mark.parametrize("history", ["accepted", "attempted", "replayed"])
def test_an_old_payment_is_attempted_a_first_time_only(
    client: Any, settings: ConnectorSettings, accept: Accept, history: str
) -> None:
    """After a day without the stack, the PSP may have charged an earlier attempt and forgotten."""
    transaction_id = accept()
    if history == "attempted":
        queue = Queue(client, settings, "killed")
        queue.join()
        take(queue)
        queue.leave()
    elif history == "replayed":
        with running(make(client, settings, FakePsp(lambda *_: Refused("HTTP 400")))):
            wait_until(lambda: ended(client, transaction_id))
        [(letter_id, _)] = client.xrange(store.WHOLE.deadletters)
        assert DeadLetters(client).replay(letter_id) == "done"
    yesterday = rfc3339(now_ms() - 24 * 3_600_000)
    client.hset(store.WHOLE.transaction(transaction_id), "created_at", yesterday)
    psp = FakePsp()
    with running(make(client, settings, psp)):
        wait_until(lambda: ended(client, transaction_id))
    assert bool(psp.calls) is (history == "accepted")
    if psp.calls:
        return
    [(letter_id, letter)] = client.xrange(store.WHOLE.deadletters)
    assert "may have" in letter["reason"]
    assert DeadLetters(client).replay(letter_id) == "old"
    assert DeadLetters(client).replay(letter_id, not_captured=True) == "done"
    flaky = FakePsp(lambda _, call: Transient("HTTP 500") if call == 1 else Captured("pi"))
    with running(make(client, settings, flaky)):
        wait_until(lambda: ended(client, transaction_id))
    assert record(client, transaction_id)["status"] == "captured"


def test_the_connector_sweeps(client: Any, settings: ConnectorSettings, accept: Accept) -> None:
    """Without anybody asking for it."""
    transaction_id = accept()
    by_delconsumer(client, settings)
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: ended(client, transaction_id))
