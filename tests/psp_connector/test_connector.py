from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from services.common import store
from services.psp_connector import lane
from services.psp_connector.lane import PROMOTE_SECONDS
from services.psp_connector.psp import Captured, Declined, Refused, Transient
from tests.psp_connector.fakes import FakePsp
from tests.psp_connector.loop import ended, make, nothing_left, record, running
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.psp_connector.psp import Charge
    from services.psp_connector.settings import ConnectorSettings

    Accept = Callable[..., str]


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
    assert points == int(client.get(store.WHOLE.points(1)) or 0)
    ledger = [json.loads(entry) for entry in client.lrange(store.WHOLE.ledger(1), 0, -1)]
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
    assert client.get(store.WHOLE.points(1)) is None
    assert client.xlen(store.WHOLE.deadletters) == 0


def test_what_the_psp_refuses_fails_with_a_dead_letter(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """A request the PSP will never take is `failed` at once, with the reason."""
    transaction_id = accept()
    with running(make(client, settings, FakePsp(lambda *_: Refused("HTTP 400 nope")))):
        wait_until(lambda: ended(client, transaction_id))
    assert record(client, transaction_id)["status"] == "failed"
    [(_, letter)] = client.xrange(store.WHOLE.deadletters)
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
    """After PSP_ATTEMPTS_MAX calls it is failed, with a dead letter."""
    psp = FakePsp(lambda *_: Transient("HTTP 503"))
    transaction_id = accept()
    with running(make(client, settings, psp)):
        wait_until(lambda: ended(client, transaction_id))
    assert psp.calls[transaction_id] == 3
    [(_, letter)] = client.xrange(store.WHOLE.deadletters)
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
    # Five in a row open it; calls in flight then still end.
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
    client.xadd(store.WHOLE.queue, entry)
    good = accept()
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: ended(client, good) and client.xlen(store.WHOLE.deadletters))
    [(_, letter)] = client.xrange(store.WHOLE.deadletters)
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
        client.xadd(store.WHOLE.queue, {"transaction_id": transaction_id})
        wait_until(lambda: client.xlen(store.WHOLE.deadletters))
    [(_, letter)] = client.xrange(store.WHOLE.deadletters)
    assert letter["reason"] == "transaction is captured already"
    assert before == record(client, transaction_id)
    assert psp.calls[transaction_id] == 1


def test_finished_things_have_a_lifetime(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """A finished record expires after FINISHED_DAYS, and its place in the index goes with it."""
    client.zadd(store.WHOLE.index(1), {"0000000000001:of-long-ago": 0})
    transaction_id = accept()
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: ended(client, transaction_id))
    days = settings.finished_days * 86_400
    assert days - 60 < client.ttl(store.WHOLE.transaction(transaction_id)) <= days
    assert client.zcard(store.WHOLE.index(1)) == 1


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
    monkeypatch.setattr(lane, "_PROMOTE_LATE_SECONDS", late_seconds)
    release = threading.Event()

    def answer(_charge: Charge, _call: int) -> Captured:
        release.wait(10)
        return Captured("pi")

    psp = FakePsp(answer)
    with running(make(client, settings, psp)):
        busy = [accept(user_id) for user_id in (1, 2, 3, 4)]
        wait_until(lambda: set(busy) == set(psp.calls))
        retried = accept(5)
        client.xdel(store.WHOLE.queue, client.hget(store.WHOLE.transaction(retried), "entry"))
        client.zadd(store.WHOLE.retries, {retried: 0})
        time.sleep(10 * PROMOTE_SECONDS)
        assert (client.zscore(store.WHOLE.retries, retried) is not None) is waits
        release.set()
        wait_until(lambda: ended(client, retried))
