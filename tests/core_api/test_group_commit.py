from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis

from services.common import redis_client, scripts
from services.core_api.group_commit import GroupCommit
from tests import support

ECHO = "return ARGV[1]"
THREADS = 8


class Counting:
    """A client that counts round trips."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._pool = client.connection_pool
        self.connection_pool = self
        self.round_trips = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_connection(self) -> Any:
        self.round_trips += 1
        return self._pool.get_connection()

    def release(self, connection: Any) -> None:
        self._pool.release(connection)


def connect(port: int, timeout_seconds: float = 5) -> Any:
    return redis_client.connect(f"redis://127.0.0.1:{port}/0", timeout_seconds=timeout_seconds)


def commit(client: Any, text: str = ECHO) -> GroupCommit:
    return GroupCommit(client, scripts.Script(text))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as executor:
        yield executor


def waiting(echo: GroupCommit) -> int:
    return len(echo._waiting)  # noqa: SLF001  nothing else tells it


def answers(futures: list[Future[Any]]) -> list[Any]:
    return [future.exception(10) or future.result() for future in futures]


def test_each_call_gets_its_own_reply(redis_port: int, pool: ThreadPoolExecutor) -> None:
    """Concurrent calls get their own replies, in fewer round trips than calls."""
    client = Counting(connect(redis_port))
    echo = commit(client)
    requested = [str(number) for number in range(2000)]
    assert requested == list(pool.map(lambda number: echo([], [number]), requested))
    assert client.round_trips < len(requested)


def test_waiting_calls_share_the_next_round_trip(
    redis_port: int, client: Any, pool: ThreadPoolExecutor
) -> None:
    counting = Counting(connect(redis_port))
    echo = commit(counting)
    echo([], ["known"])  # Redis has the script now
    counting.round_trips = 0
    client.client_pause(timeout=30_000, all=False)
    futures = [pool.submit(echo, ["a key"], ["0"])]
    support.wait_until(lambda: counting.round_trips == 1, what="the first call")
    futures += [pool.submit(echo, ["a key"], [str(n)]) for n in range(1, THREADS)]
    support.wait_until(lambda: waiting(echo) == THREADS - 1, what="all to wait")
    client.client_unpause()
    assert [str(n) for n in range(THREADS)] == answers(futures)
    assert counting.round_trips == 2


def test_an_error_affects_one_call(redis_port: int, pool: ThreadPoolExecutor) -> None:
    """The script's error for one call does not affect others of the same round trip."""
    picky = commit(
        connect(redis_port),
        "if ARGV[1] == 'bad' then return redis.error_reply('BAD') end return ARGV[1]",
    )
    requested = ["bad" if number % 3 == 0 else str(number) for number in range(300)]
    replies = answers([pool.submit(picky, [], [one]) for one in requested])
    assert requested == [str(one).lower() for one in replies]
    assert sum(isinstance(one, redis.ResponseError) for one in replies) == 100


def test_a_missing_script_is_loaded(redis_port: int, client: Any, pool: ThreadPoolExecutor) -> None:
    """A restart of Redis causes no error."""
    echo = commit(connect(redis_port))
    for _ in range(5):
        client.script_flush()
        requested = [str(number) for number in range(40)]
        assert requested == list(pool.map(lambda number: echo([], [number]), requested))


def test_a_silent_redis_delays_all_at_once(pool: ThreadPoolExecutor) -> None:
    """Calls waiting behind one that times out fail with it, unsent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        counting = Counting(connect(listener.getsockname()[1], timeout_seconds=1))
        echo = commit(counting)
        futures = [pool.submit(echo, [], ["0"])]
        support.wait_until(lambda: counting.round_trips == 1, what="the first call")
        futures += [pool.submit(echo, [], [str(n)]) for n in range(1, THREADS)]
        support.wait_until(lambda: waiting(echo) == THREADS - 1, what="all to wait")
        assert [redis.TimeoutError] * THREADS == [type(one) for one in answers(futures)]
    assert counting.round_trips == 1


def test_calls_work_again_after_an_outage(tmp_path: Any, pool: ThreadPoolExecutor) -> None:
    """A refused connection fails only the current calls; the next one connects again."""
    port = support.free_ports(1)
    echo = commit(connect(port))
    replies = answers([pool.submit(echo, [], [str(n)]) for n in range(THREADS)])
    assert [redis.ConnectionError] * THREADS == [type(one) for one in replies]
    with support.redis_server(tmp_path / "redis", port):
        assert echo([], ["here"]) == "here"


def test_an_unexpected_error_fails_one_round_trip(
    redis_port: int, pool: ThreadPoolExecutor
) -> None:
    """Its callers get the error, and the next round trip works."""
    client = connect(redis_port)
    echo = commit(client)
    unsendable = object()
    futures = [pool.submit(echo, [], [unsendable if n % 10 == 0 else str(n)]) for n in range(200)]
    replies = answers(futures)
    assert {redis.DataError, str} >= {type(one) for one in replies}
    assert isinstance(replies[0], redis.DataError)
    assert echo([], ["here"]) == "here"
