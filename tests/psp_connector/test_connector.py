import itertools
import json
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from falcon.testing import TestClient
from structlog.testing import capture_logs

from services.psp_connector import app, lane
from services.psp_connector.breaker import FAILURES_MAX
from services.psp_connector.psp import Captured, Charge, Declined, Outcome, Refused, Transient
from services.psp_connector.settings import ConnectorSettings
from tests.psp_connector.payments import STORE, FakePsp, Payments, captured
from tests.support import wait_until


def test_a_captured_transaction_earns_its_points(client: Any, payments: Payments) -> None:
    """A payment earns a point per major unit; record, points and ledger agree."""
    money = [(1250, "USD"), (500, "JPY"), (1250, "BHD"), (99, "USD"), (19_999, "CLF")]
    ids = [payments.accept(amount=amount, currency=currency) for amount, currency in money]
    psp = FakePsp()
    payments.end(psp, *ids)
    assert psp.probes == 0
    records = [payments.record(i) for i in ids]
    assert [r["psp_reference"] for r in records] == [f"pi_{i}" for i in ids]
    assert [r["loyalty_points"] for r in records] == [12, 500, 1, 0, 1]
    ledger = [json.loads(entry) for entry in client.lrange(STORE.ledger(1), 0, -1)]
    assert {entry["transaction_id"]: entry["points"] for entry in ledger} == {
        r["id"]: r["loyalty_points"] for r in records if r["loyalty_points"]
    }
    assert payments.points() == 514


time_of = datetime.fromisoformat
CRASH: Any = "an exception of our own"
DOWN, CARD = Transient("HTTP 503", 0.05), Declined("insufficient_funds", "pi_1")


@pytest.mark.parametrize(
    ("outcomes", "status", "reason"),
    [
        ([Captured("pi_1")], "captured", None),
        ([CARD], "declined", None),
        ([Refused("HTTP 400 nope")], "failed", "refused by the PSP: HTTP 400 nope"),
        ([Refused("no IQD", is_sent=False)], "failed", "not sent to the PSP: no IQD"),
        ([DOWN, DOWN, Captured("pi_1")], "captured", None),
        ([DOWN, CARD], "declined", None),
        ([DOWN] * 3, "failed", "given up after 3 attempts: HTTP 503"),
        ([CRASH] * 3, "failed", "given up after 3 attempts: ValueError in the connector"),
    ],
)
def test_each_outcome_of_a_call(
    payments: Payments, outcomes: Sequence[Outcome], status: str, reason: str | None
) -> None:
    """Definite outcomes are final, others retried after Retry-After; a failure has a letter."""

    def respond(_charge: Charge, call: int) -> Outcome:
        if outcomes[call - 1] is CRASH:
            raise ValueError("on purpose")
        return outcomes[call - 1]

    psp, transaction_id = FakePsp(respond), payments.accept()
    with capture_logs() as logs:
        payments.end(psp, transaction_id)
    record = payments.record(transaction_id)
    code = "insufficient_funds" if status == "declined" else None
    assert (record["status"], record.get("decline_code")) == (status, code)
    assert record["attempts"] == psp.calls.total() == len(outcomes)
    events = ["queued", *["processing", "retry"] * (len(outcomes) - 1), "processing", status]
    assert [event["event"] for event in record["timeline"]] == events
    for outcome, retry in zip(outcomes, record["timeline"][2:-1:2], strict=False):
        delay = time_of(retry["next_attempt_at"]) - time_of(retry["at"])
        assert delay >= timedelta(seconds=0 if outcome is CRASH else DOWN.retry_after_seconds)
    assert [letter["reason"] for letter in payments.letters()] == ([reason] if reason else [])
    assert psp.probes == (
        len(outcomes) == payments.settings.psp_attempts_max and status == "failed"
    )
    assert [line.get("decline_code") for line in logs if line["event"] == "attempt"][-1] == code


def test_final_records_have_a_lifetime(client: Any, payments: Payments) -> None:
    """A final record expires after FINISHED_DAYS, and its index member is removed."""
    client.zadd(STORE.index(1), {"0000000000001:of-long-ago": 0})
    transaction_id = payments.accept()
    payments.end(FakePsp(), transaction_id)
    days = payments.settings.finished_days * 86_400
    assert days - 60 < client.ttl(STORE.transaction(transaction_id)) <= days
    assert client.zcard(STORE.index(1)) == 1


@pytest.mark.parametrize(("late_seconds", "waits"), [(5.0, True), (0.01, False)])
def test_a_due_retry_waits_for_a_spare_slot_within_a_bound(
    client: Any,
    payments: Payments,
    monkeypatch: pytest.MonkeyPatch,
    late_seconds: float,
    *,
    waits: bool,
) -> None:
    """Queued at once, it would be ahead of other merchants' new payments."""
    monkeypatch.setattr(lane, "PROMOTE_SECONDS", 0.01)
    monkeypatch.setattr(lane, "_PROMOTE_LATE_SECONDS", late_seconds)
    release = threading.Event()
    psp = FakePsp(lambda *_: Captured("pi") if release.wait(10) else Transient("too late"))
    with payments.running(psp):
        busy = [payments.accept(user_id) for user_id in (1, 2, 3, 4)]
        wait_until(lambda: set(busy) == set(psp.calls))
        retried = payments.accept(5)
        client.xdel(STORE.queue, client.hget(STORE.transaction(retried), "entry"))
        client.zadd(STORE.retries, {retried: 0})
        if waits:
            time.sleep(0.1)
            assert client.zcard(STORE.retries)
        else:
            wait_until(lambda: not client.zcard(STORE.retries), seconds_max=5, what="promotion")
        release.set()
        payments.wait_ended(retried)


def test_one_merchants_flood_does_not_delay_another(payments: Payments) -> None:
    """Each payment of alice's ends within 2 s, however many becky queues and whatever they do."""
    release = threading.Event()

    def respond(charge: Charge, _call: int) -> Outcome:
        if charge.payment_method == "pm_slow":
            release.wait(30)
        return Transient("HTTP 500") if charge.payment_method == "pm_failing" else Captured("pi")

    methods = itertools.cycle(("pm_quick", "pm_failing", "pm_slow"))
    becky = [payments.accept(2, payment_method=next(methods)) for _ in range(1000)]
    with payments.running(FakePsp(respond), drain_seconds=0):
        for _ in range(12):
            payments.accept(2, payment_method=next(methods))
            payments.wait_ended(payments.accept(1), seconds_max=2)
        assert not payments.ended(becky[-1])
        release.set()


def test_an_outage_costs_one_attempt_at_most(payments: Payments) -> None:
    """While probes fail nothing is charged; then calls start one by one, and each captures."""
    under_way, together = threading.Semaphore(4), list[int]()

    def respond(charge: Charge, call: int) -> Outcome:
        with under_way:
            together.append(4 - under_way._value)  # noqa: SLF001
            time.sleep(0.01)
        return captured(charge, call)

    psp, ids = FakePsp(respond), [payments.accept(user_id) for user_id in range(40)]
    psp.up = False
    with payments.running(psp):
        wait_until(lambda: psp.probes > 5, what="probes")
        lost = psp.calls.total()
        assert lost <= FAILURES_MAX + 3, "those in flight when the fifth failed"
        psp.up = True
        payments.wait_ended(*ids)
    assert {payments.record(i)["status"] for i in ids} == {"captured"}
    assert psp.calls.total() == lost + len(ids)
    assert max(together[:3]) <= 2
    assert max(together) == 4


def test_calls_that_hang_after_an_outage_hold_up_no_other(payments: Payments) -> None:
    """Fewer merchants than slots: they take the first calls that are allowed, but not all."""
    release = threading.Event()

    def respond(charge: Charge, _call: int) -> Outcome:
        if charge.payment_method == "pm_hangs":
            release.wait(30)
        return Captured("pi")

    psp = FakePsp(respond)
    psp.up = False
    with payments.running(psp):
        wait_until(lambda: payments.accept(1) and psp.probes > 2, what="probes")
        hanging = [payments.accept(n, payment_method="pm_hangs") for n in (2, 3, 4)]
        psp.up = True
        wait_until(lambda: all(psp.calls[one] for one in hanging), seconds_max=10, what="calls")
        payments.wait_ended(payments.accept(5), seconds_max=10)
        release.set()
        payments.wait_ended(*hanging)


def test_a_connector_that_cannot_reach_its_psp_leaves_payments_to_others(
    payments: Payments,
) -> None:
    """Also those that it has read: another connector may reach it."""
    ids = [payments.accept(n % 20) for n in range(200)]
    unreachable = FakePsp()
    unreachable.up = False
    with payments.running(unreachable):
        wait_until(lambda: unreachable.probes > 2, what="probes")
        with payments.running(FakePsp(), "two"):
            payments.wait_ended(*ids, seconds_max=20)
    assert {payments.record(i)["status"] for i in ids} == {"captured"}


@pytest.mark.parametrize("attempts_max", [1, 3])
def test_no_payment_is_given_up_in_an_outage(payments: Payments, attempts_max: int) -> None:
    """Not even a single one, whose attempts two connectors share, so that neither counts five."""
    payments.settings = payments.settings.model_copy(update={"psp_attempts_max": attempts_max})
    psp, transaction_id = FakePsp(), payments.accept()
    psp.up = False
    with payments.running(psp), payments.running(psp, "two"):
        wait_until(lambda: psp.probes > 5, what="probes")
        assert psp.calls.total() <= attempts_max + 2
        psp.up = True
        payments.wait_ended(transaction_id)
    assert payments.record(transaction_id)["status"] == "captured"
    assert payments.letters() == []


def test_a_payment_that_is_not_sent_hides_no_outage(payments: Payments) -> None:
    """It does not count as a response: the failures around it are consecutive."""
    payments.settings = payments.settings.model_copy(update={"psp_attempts_max": 100})
    outcomes: list[Outcome] = [Transient("no response"), Refused("no IQD", is_sent=False)]
    failed = itertools.cycle(outcomes)
    psp = FakePsp(lambda *_: next(failed))
    for _ in range(2 * FAILURES_MAX):
        payments.accept()
    with payments.running(psp, concurrency=1):
        wait_until(lambda: psp.probes, seconds_max=5)


def test_a_full_redis_is_drained(client: Any, payments: Payments) -> None:
    """A connector that starts with a full Redis for the first time charges what was accepted."""
    ids = [payments.accept() for _ in range(20)]
    client.config_set("maxmemory", "1")
    try:
        with payments.running(FakePsp()):
            payments.wait_ended(*ids)
    finally:
        client.config_set("maxmemory", "1gb")


def test_health_fails_while_a_lane_cannot_join(
    payments: Payments, settings: ConnectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis responds, but has no replicas: nothing is charged."""
    payments.settings = settings.model_copy(update={"redis_replicas_min": 1})
    connector = payments.connector(FakePsp())
    http = TestClient(
        app.create_app(settings, connector, payments.client), headers={"Host": "127.0.0.1"}
    )
    assert http.simulate_get("/health").status_code == 200
    monkeypatch.setattr(app, "_STUCK_SECONDS", 0.2)
    threading.Thread(target=connector.run, daemon=True).start()
    try:
        wait_until(lambda: http.simulate_get("/health").status_code == 503, what="a failed check")
        checks = http.simulate_get("/health").json["checks"]
        assert checks == {"redis": "pass", "loop": "fail"}
    finally:
        connector.stop()


@pytest.mark.parametrize("name", ["charge_3", "sweep", "save"])
def test_a_thread_that_cannot_start_loses_no_payment(
    payments: Payments, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The connector takes nothing unless it has all its threads; without one it ends."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    transaction_id = payments.accept()
    psp = FakePsp()
    with capture_logs() as logs, pytest.raises(SystemExit):
        payments.connector(psp, concurrency=4).run()
    assert [line["event"] for line in logs] == ["cannot start threads"]
    wait_until(
        lambda: "sweep" not in {thread.name for thread in threading.enumerate()},
        seconds_max=10,
        what="the end of the sweep",
    )
    assert (psp.calls.total(), payments.record(transaction_id)["status"]) == (0, "queued")
