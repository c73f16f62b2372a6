"""The wall clock is set back or forward by hours while transactions are on their way."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from services.common import store
from services.psp_connector.queue import LEASE_SECONDS, Queue
from services.psp_connector.records import FinalResult, RetryResult
from tests.psp_connector.fakes import take, take_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.psp_connector.settings import ConnectorSettings

    Accept = Callable[..., str]

HOUR = 3600.0


class Clock:
    """Starts now: a transaction accepted a day before the clock's time is not tried again."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("jump_seconds", "waits"), [(2 * HOUR, False), (-2 * HOUR, False), (-HOUR / 2, True)]
)
def test_a_retry_is_not_put_off_for_hours(
    client: Any, settings: ConnectorSettings, accept: Accept, jump_seconds: float, *, waits: bool
) -> None:
    """It comes at once, or an hour late at the most, which is the longest wait there is."""
    clock = Clock()
    queue = Queue(client, settings, "one", clock=clock)
    accept()
    queue.join()
    (work,) = take(queue, 1)
    assert queue.save([(work, RetryResult("HTTP 503", 10))]) == [True]
    assert queue.promote() == 0

    clock.now += jump_seconds
    assert (0 if waits else 1) == queue.promote()
    clock.now += HOUR
    assert (1 if waits else 0) == queue.promote()
    (again,) = take(queue, 1)
    assert queue.save([(again, FinalResult("captured", points=12))]) == [True]
    assert client.hget(store.WHOLE.transaction(work.charge.transaction_id), "status") == "captured"


@pytest.mark.parametrize("command", [("EXPIRE", int(2 * HOUR)), ("PERSIST",)])
def test_a_lease_does_not_last_for_hours(
    client: Any, settings: ConnectorSettings, accept: Accept, command: tuple[Any, ...]
) -> None:
    """Redis keeps the moment of its end: set back, a dead connector would live two hours more.

    And for ever, if it was written by hand.
    """
    dead, other = (Queue(client, settings, name) for name in ("dead", "other"))
    accept()
    for queue in (dead, other):
        queue.join()
    take(dead, 1)
    client.execute_command(command[0], store.WHOLE.lease("dead"), *command[1:])

    assert take_over(other) == []
    assert 0 < client.pttl(store.WHOLE.lease("dead")) <= LEASE_SECONDS * 1000
    dead.renew()
    assert take_over(other) == [], "one that lives renews it"
    client.delete(store.WHOLE.lease("dead"))
    assert len(take_over(other)) == 1


def test_an_entry_is_taken_over_once_however_long_it_was_idle(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """Idle time is measured on the wall clock too: two that see one dead share what it had."""
    dead = Queue(client, settings, "dead")
    others = [Queue(client, settings, f"other-{n}") for n in range(4)]
    ids = {accept() for _ in range(40)}
    for queue in (dead, *others):
        queue.join()
    take(dead, len(ids))
    client.delete(store.WHOLE.lease("dead"))

    with ThreadPoolExecutor(len(others)) as pool:
        taken = list(pool.map(take_over, others))
    works = [work for some in taken for work in some]
    assert len(ids) == len(works)
    assert ids == {work.charge.transaction_id for work in works}
    assert len(ids) == client.xpending(store.WHOLE.queue, store.GROUP)["pending"]
