from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis

from services.common import store
from services.psp_connector.psp import Charge
from services.psp_connector.queue import Queue
from services.psp_connector.records import Work
from services.psp_connector.results import FinalResult
from services.psp_connector.saver import Attempt, Saver
from services.psp_connector.slots import Slots
from tests.psp_connector.fakes import take
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from services.psp_connector.settings import ConnectorSettings

    Accept = Callable[..., str]

CAPTURED = FinalResult("captured", points=12)


class FakeQueue:
    """Saves unless it is away or refuses; records the size of each batch."""

    def __init__(self) -> None:
        self.away = False
        self.error: Exception = redis.ConnectionError("away")
        self.refused: set[str] = set()
        self.sizes: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def save(self, results: Sequence[tuple[Work, Any]]) -> list[bool | redis.ResponseError]:
        self.may_go_on.wait(10)
        self.sizes.append(len(results))
        if self.away:
            raise self.error
        return [
            redis.ResponseError("WRONGTYPE") if work.entry_id in self.refused else True
            for work, _ in results
        ]


class Recorder:
    """Records the saver's callbacks."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.given_up: list[str] = []

    def saved(self, attempts: list[tuple[Attempt, bool]]) -> None:
        self.done += [attempt.work.entry_id for attempt, _ in attempts]

    def lost(self, attempt: Attempt) -> None:
        self.given_up.append(attempt.work.entry_id)


def attempt(entry_id: str) -> Attempt:
    return Attempt(Work(entry_id, 1, 1, Charge("t", "r", 1250, "USD", "pm")), CAPTURED, 1.0)


@contextlib.contextmanager
def saving(queue: Any, messages: Recorder) -> Iterator[Saver]:
    saver = Saver(queue, Slots(lambda: 1), messages, pause_seconds=0.01)
    saver.start()
    try:
        yield saver
    finally:
        saver.stop()


def test_what_came_meanwhile_is_saved_in_one_go() -> None:
    """Results that arrive while one is being saved are saved together."""
    queue, messages = FakeQueue(), Recorder()
    queue.may_go_on.clear()
    with saving(queue, messages) as saver:
        saver.put(attempt("0"))
        for number in range(1, 9):
            saver.put(attempt(str(number)))
        queue.may_go_on.set()
        wait_until(lambda: len(messages.done) == 9)
    assert len(queue.sizes) <= 2
    assert [str(number) for number in range(9)] == messages.done


@pytest.mark.parametrize("error", [redis.ConnectionError("away"), ValueError("unheard of")])
def test_redis_may_be_away_for_a_while(error: Exception) -> None:
    """While saving fails nothing counts as saved; afterwards everything is saved."""
    queue, messages = FakeQueue(), Recorder()
    queue.away, queue.error = True, error
    with saving(queue, messages) as saver:
        for number in range(3):
            saver.put(attempt(str(number)))
        wait_until(lambda: len(queue.sizes) > 5)
        assert not messages.done
        queue.away = False
        wait_until(lambda: len(messages.done) == 3)
    assert not messages.given_up


def test_one_that_cannot_be_saved_holds_up_no_other() -> None:
    """A rejected result is retried and given up in the end; the others are saved at once."""
    queue, messages = FakeQueue(), Recorder()
    queue.refused = {"broken"}
    with saving(queue, messages) as saver:
        saver.put(attempt("broken"))
        for number in range(5):
            saver.put(attempt(str(number)))
        wait_until(lambda: len(messages.done) == 5)
        wait_until(lambda: messages.given_up)
    assert messages.given_up == ["broken"]
    assert "broken" not in messages.done


def test_a_redis_that_forgot_the_scripts_is_told_them_again(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """After a Redis restart, which loses the scripts, results are saved all the same."""
    ids = [accept() for _ in range(3)]
    queue = Queue(client, settings, "one")
    queue.join()
    works = take(queue, 3)
    client.script_flush()
    assert queue.save([(work, CAPTURED) for work in works]) == [True] * 3
    assert {client.hget(store.WHOLE.transaction(i), "status") for i in ids} == {"captured"}
    assert int(client.get(store.WHOLE.points(1))) == 36


def test_an_unreadable_record_spoils_no_other(
    client: Any, settings: ConnectorSettings, accept: Accept
) -> None:
    """One record of three was broken by hand meanwhile: its error is its own."""
    ids = [accept() for _ in range(3)]
    queue = Queue(client, settings, "one")
    queue.join()
    works = take(queue, 3)
    client.delete(store.WHOLE.transaction(ids[1]))
    client.set(store.WHOLE.transaction(ids[1]), "no hash")
    first, second, third = queue.save([(work, CAPTURED) for work in works])
    assert (first, third) == (True, True)
    assert isinstance(second, redis.ResponseError)
