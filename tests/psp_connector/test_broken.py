"""Corrupt data in Redis does not stop other payments, and nothing is lost."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.common import store
from services.psp_connector import saver
from services.psp_connector.connector import Connector
from services.psp_connector.psp import Captured, Charge, Declined, Outcome, Refused, Transient
from services.psp_connector.queue import Queue
from services.psp_connector.sweep import Sweep
from tests.psp_connector.payments import STORE, FakePsp, Payments, take
from tests.support import wait_until

BROKEN = [
    ("amount", "9" * 5000), ("amount", "many"), ("amount", "0"), ("amount", "-5"),
    ("amount", "1.5"), ("amount", " 5"), ("amount", None), ("attempts", "9223372036854775807"),
    ("attempts", "x"), ("attempts", "007"), ("attempts", None), ("currency", "usd"),
    ("currency", "XXX"), ("currency", None), ("user_id", "1" + "0" * 40),
    ("user_id", "1:points"), ("user_id", "01"),
    ("payment_method", "pm_" + "x" * 1_000_000), ("payment_method", "pm\r\nX: y"),
    ("timeline", None),
]  # fmt: skip


def test_a_broken_record_is_a_dead_letter_and_stops_no_other(payments: Payments) -> None:
    """The transaction fails uncharged, its dead letter names the field, and others are charged."""
    ids = [payments.accept() for _ in range(2 * len(BROKEN))]
    broken = dict(zip(ids[::2], BROKEN, strict=True))
    for transaction_id, (field, value) in broken.items():
        payments.change(transaction_id, field, value)
    psp = FakePsp()
    payments.end(psp, *ids[1::2])
    reasons = {letter["transaction_id"]: letter["reason"] for letter in payments.letters()}
    assert {i: reason.rpartition(" is ")[0] for i, reason in reasons.items()} == {
        i: f"unreadable record: {field}" for i, (field, _) in broken.items()
    }
    assert max(map(len, reasons.values())) < 100
    statuses = {payments.client.hget(STORE.transaction(i), "status") for i in broken}
    assert statuses == {"failed"}
    assert dict(psp.calls) == dict.fromkeys(ids[1::2], 1)
    assert payments.points() == 12 * len(BROKEN)


def test_a_malformed_request_id_is_not_sent(payments: Payments) -> None:
    """It would be a header to the PSP; without it, the payment is charged."""
    payments.change(payments.accept(), "request_id", "a\r\nX: y")
    [work] = take(payments.queue("one"))
    assert work.charge.request_id == ""


@pytest.mark.parametrize(
    ("status", "outcome", "reason"),
    [
        (None, Captured("pi_1"), "captured as pi_1, but it has no record"),
        ("x", Captured("pi_1"), "captured as pi_1, but its status is x"),
        ("failed", Captured("pi_1"), "captured as pi_1, but its status is failed"),
        (None, Transient("no response"), "unknown transaction"),
        ("x", Transient("no response"), "transaction is x already"),
    ],
)
def test_a_record_deleted_or_ended_during_the_charge_leaves_a_dead_letter(
    payments: Payments, status: str | None, outcome: Outcome, reason: str
) -> None:
    """The dead letter has what the PSP captured, so no attempt is lost."""
    transaction_id = payments.accept()

    def change(charge: Charge, _call: int) -> Outcome:
        key = STORE.transaction(charge.transaction_id)
        if status:
            payments.client.hset(key, "status", status)
        else:
            payments.client.delete(key)
        return outcome

    with payments.running(FakePsp(change)):
        wait_until(lambda: payments.letters() and payments.nothing_left(), seconds_max=10)
    [letter] = payments.letters()
    assert (letter["transaction_id"], letter["reason"]) == (transaction_id, reason)


def test_text_from_the_psp_is_stored_short_and_printable(payments: Payments) -> None:
    """A result that cannot be saved would delay those saved with it."""
    outcomes: dict[str, Any] = {
        payments.accept(): kind(text)
        for kind in (Captured, Declined, Refused, Transient)
        for text in ("\ud800", "x" * 3_000_000, "a\r\nb")
    }
    payments.end(FakePsp(lambda charge, _call: outcomes[charge.transaction_id]), *outcomes)
    stored = [payments.client.hgetall(STORE.transaction(i)) for i in outcomes]
    assert all(
        len(value) < 2000 and value.isprintable() for record in stored for value in record.values()
    )


NO_POINTS = ("abc", "007", "-0", "1.5", "9223372036854775807")


@pytest.mark.parametrize(
    ("key", "value"),
    [*((STORE.points(1), no) for no in NO_POINTS), (STORE.retries, "x"), (STORE.deadletters, "x")],
)
def test_a_payment_goes_on_once_a_broken_key_is_repaired(
    client: Any, payments: Payments, key: str, value: str
) -> None:
    """It stays open without a credit until the repair; then it ends and is credited once.

    Others do not wait for it, nor for an entry whose dead letter cannot be written.
    """
    client.xadd(STORE.queue, {"hello": "world"})
    first, other = payments.accept(1), payments.accept(2)
    client.set(key, value)

    def respond(charge: Charge, call: int) -> Outcome:
        if charge.transaction_id == first and key == STORE.retries and call == 1:
            return Transient("HTTP 500")
        if charge.transaction_id == first and key == STORE.deadletters:
            return Refused("HTTP 400")
        return Captured("pi")

    psp = FakePsp(respond)
    with capture_logs() as logs, payments.running(psp, drain_seconds=0):
        wait_until(lambda: psp.calls[first] and psp.calls[other])
        if key != STORE.retries:  # a key of all merchants
            payments.wait_ended(other)
        assert payments.record(first)["status"] == "processing"
        assert client.get(key) == value
        client.delete(key)
        payments.wait_ended(first, other)
        wait_until(payments.nothing_left)
    assert "Redis unavailable" not in {line["event"] for line in logs}
    captured = key != STORE.deadletters
    assert payments.record(first)["status"] == ("captured" if captured else "failed")
    assert client.llen(STORE.ledger(1)) == captured
    assert payments.points() == 12 * captured
    reasons = {letter["reason"] for letter in payments.letters()}
    assert reasons - {"refused by the PSP: HTTP 400"} == {"not an entry of this queue"}


def test_results_that_cannot_be_saved_hold_no_slot(
    client: Any, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More merchants than it looks at have broken points; the payments of others end meanwhile."""
    monkeypatch.setattr(saver, "_TRIES_MAX", 100_000)  # no slot is free because one was given up
    broken = range(1, 10)
    for user_id in broken:
        client.set(STORE.points(user_id), "abc")
    stuck = [payments.accept(user_id) for user_id in broken for _ in range(4)]
    with payments.running(psp := FakePsp()):
        wait_until(lambda: psp.calls.total() == len(broken) * 3, what="its share of calls for each")
        payments.wait_ended(payments.accept(99), seconds_max=10)
        assert {payments.record(one)["status"] for one in stuck} == {"processing", "queued"}
        client.delete(*map(STORE.points, broken))
        payments.wait_ended(*stuck)
    assert [payments.points(user_id) for user_id in broken] == [4 * 12] * len(broken)


def by_delconsumer(payments: Payments) -> None:
    assert len(take(payments.queue("another"))) == 1
    payments.client.xgroup_delconsumer(STORE.queue, store.GROUP, "another")


def by_setid(payments: Payments) -> None:
    payments.queue("another")
    payments.admin.xgroup_setid(STORE.queue, store.GROUP, "$")


def by_del(payments: Payments) -> None:
    payments.client.delete(STORE.queue)


def by_trimming(payments: Payments) -> None:
    queue = payments.queue("another")
    take(queue)
    payments.admin.xtrim(STORE.queue, maxlen=0)
    queue.leave()


def by_forgetting_a_retry(payments: Payments) -> None:
    by_delconsumer(payments)
    payments.client.hset(payments.admin.keys(STORE.transaction("*"))[0], "status", "queued")


@pytest.mark.parametrize(
    "lose", [by_delconsumer, by_setid, by_del, by_trimming, by_forgetting_a_retry]
)
def test_an_open_transaction_in_no_queue_is_found(
    payments: Payments, lose: Callable[[Payments], None]
) -> None:
    """The connector queues it again; it is captured once, and no dead consumer remains."""
    transaction_id = payments.accept()
    lose(payments)
    with payments.running(FakePsp()):
        payments.wait_ended(transaction_id)
        payments.wait_ended(payments.accept())
        wait_until(lambda: payments.consumers() <= {"one"}, what="removal of the others")
    assert (payments.points(), payments.letters()) == (24, [])
    assert payments.nothing_left()


@pytest.mark.parametrize(
    ("kind", "name"), [(Queue, "join"), (Queue, "renew"), (Connector, "saved"), (Sweep, "step")]
)
def test_no_thread_ends_by_an_unexpected_error(
    payments: Payments, monkeypatch: pytest.MonkeyPatch, kind: Any, name: str
) -> None:
    """Its next iteration succeeds: one payment that the sweep finds and one more are captured."""
    real, calls = getattr(kind, name), itertools.count()

    def fails_once(*args: Any) -> Any:
        if next(calls) == 0:
            raise AttributeError("unexpected")
        return real(*args)

    orphan = payments.accept()
    by_del(payments)
    monkeypatch.setattr(kind, name, fails_once)
    with payments.running(FakePsp()):
        payments.wait_ended(orphan, seconds_max=5)
        payments.wait_ended(payments.accept(), seconds_max=5)
