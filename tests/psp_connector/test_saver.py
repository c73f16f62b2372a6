from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from services.psp_connector.psp import Charge
from services.psp_connector.records import FinalResult, Work
from services.psp_connector.saver import Attempt, Saver
from services.psp_connector.slots import Slots
from tests.psp_connector.payments import STORE, Payments, take
from tests.support import wait_until

CAPTURED = FinalResult("captured", points=12)


class FakeQueue:
    """Raises `error` while set, and rejects `refused`; records batch sizes."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.refused = ""
        self.sizes: list[int] = []

    def save(self, results: Sequence[tuple[Work, Any]]) -> list[bool | redis.ResponseError]:
        self.sizes.append(len(results))
        time.sleep(0.02)  # let the other results arrive
        if self.error:
            raise self.error
        return [
            redis.ResponseError("WRONGTYPE") if work.entry_id == self.refused else True
            for work, _ in results
        ]


def attempt(entry_id: str) -> Attempt:
    return Attempt(Work(entry_id, 1, 1, Charge("t", "r", 1250, "USD", "pm")), CAPTURED, 1.0)


@contextlib.contextmanager
def saving(queue: Any, slots: Slots) -> Iterator[list[str]]:
    """Saves nine results; yields the entries saved so far."""
    done: list[str] = []
    saver = Saver(
        queue, slots, lambda saved: done.extend(one.work.entry_id for one, _ in saved),
        pause_seconds=0.01,
    )  # fmt: skip
    saver.start()
    attempts = [attempt(str(number)) for number in range(9)]
    slots.occupy(attempt.work for attempt in attempts)
    for one in attempts:
        saver.put(one)
    try:
        yield done
    finally:
        saver.stop()


@pytest.mark.parametrize("error", [redis.ConnectionError("away"), ValueError("unheard of")])
def test_results_are_saved_after_an_outage(error: Exception) -> None:
    """During the outage nothing counts as saved; then one round trip saves many results."""
    queue, slots = FakeQueue(), Slots(lambda: 9)
    queue.error = error
    with saving(queue, slots) as done:
        wait_until(lambda: len(queue.sizes) > 9)
        assert not done
        queue.error = None
        wait_until(lambda: len(done) == 9)
        wait_until(lambda: not slots.in_flight)
    assert max(queue.sizes[:2]) >= 5


def test_a_rejected_result_does_not_delay_others() -> None:
    """It is retried and finally given up; the others are saved at once."""
    queue, slots = FakeQueue(), Slots(lambda: 9)
    queue.refused = "4"
    with saving(queue, slots) as done:
        wait_until(lambda: len(done) == 8)
        assert slots.in_flight == {"4"}
        wait_until(lambda: not slots.in_flight)
    assert "4" not in done


def test_an_unreadable_record_does_not_affect_others(client: Any, payments: Payments) -> None:
    """One of three in a round trip fails alone, even if Redis has lost the scripts."""
    ids = [payments.accept() for _ in range(3)]
    queue = payments.queue("one")
    works = take(queue, 3)
    client.script_flush()
    client.set(STORE.transaction(ids[1]), "no hash")
    first, second, third = queue.save([(work, CAPTURED) for work in works])
    assert (first, third) == (True, True)
    assert isinstance(second, redis.ResponseError)
    assert payments.points() == 24
