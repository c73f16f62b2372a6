import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from services.psp_connector import saver
from services.psp_connector.records import FinalResult, Work
from services.psp_connector.saver import Attempt, Saver
from services.psp_connector.slots import Slots
from tests.psp_connector.payments import work
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
            redis.ResponseError("WRONGTYPE") if one.entry_id == self.refused else True
            for one, _ in results
        ]


@contextlib.contextmanager
def saving(queue: Any, slots: Slots) -> Iterator[list[str]]:
    """Saves nine results; yields the entries saved so far."""
    done: list[str] = []
    thread = Saver(queue, slots, lambda saved: done.extend(a.work.entry_id for a, _ in saved))
    thread.start()
    works = [work(str(number)) for number in range(9)]
    slots.occupy(works)
    for one in works:
        thread.put(Attempt(one, CAPTURED, 1.0))
    try:
        yield done
    finally:
        thread.stop()


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


def test_a_rejected_result_does_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is retried and finally given up; the others are saved at once."""
    monkeypatch.setattr(saver, "_TRIES_MAX", 5)
    queue, slots = FakeQueue(), Slots(lambda: 9)
    queue.refused = "4"
    with saving(queue, slots) as done:
        wait_until(lambda: len(done) == 8)
        assert slots.in_flight == {"4"}
        wait_until(lambda: not slots.in_flight)
    assert "4" not in done
