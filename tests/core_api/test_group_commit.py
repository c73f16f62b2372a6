from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import redis

from services.common import redis_client, scripts
from services.core_api.group_commit import GroupCommit
from tests import support
from tests.support import wait_until

ECHO = "return ARGV[1]"
PICKY = "if ARGV[1] == 'bad' then return redis.error_reply('BAD') end return ARGV[1]"
THREADS = 8
TEXTS = [str(number) for number in range(THREADS)]


def commit(port: int, text: str = ECHO) -> GroupCommit:
    client = redis_client.connect(f"redis://127.0.0.1:{port}/0", timeout_seconds=1)
    return GroupCommit(client, scripts.Script(text))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as executor:
        yield executor


def replies(futures: list[Future[Any]]) -> list[Any]:
    return [future.exception(10) or future.result() for future in futures]


def test_each_call_gets_its_own_reply(
    redis_port: int, client: Any, pool: ThreadPoolExecutor
) -> None:
    """Concurrent calls get their own replies, also from a Redis that does not have the script."""
    echo = commit(redis_port)
    texts = [str(number) for number in range(200)]
    for _ in range(5):
        client.script_flush()
        assert list(pool.map(lambda text: echo([], [text]), texts)) == texts


def behind_one(echo: GroupCommit, pool: ThreadPoolExecutor) -> tuple[list[Future[Any]], Mock]:
    """Calls while the first has no reply; and what counts their round trips from then on."""
    connections: Any = echo._client.connection_pool  # noqa: SLF001
    trips = connections.get_connection = Mock(wraps=connections.get_connection)
    futures = [pool.submit(echo, ["a key"], TEXTS[:1])]
    wait_until(lambda: trips.called, what="the first call")
    futures += [pool.submit(echo, ["a key"], [text]) for text in TEXTS[1:]]
    wait_until(lambda: len(echo._waiting) == THREADS - 1, what="all to wait")  # noqa: SLF001
    return futures, trips


def test_waiting_calls_share_the_next_round_trip(
    redis_port: int, client: Any, pool: ThreadPoolExecutor
) -> None:
    echo = commit(redis_port)
    echo([], ["known"])  # Redis has the script now
    client.client_pause(timeout=30_000, all=False)
    futures, trips = behind_one(echo, pool)
    client.client_unpause()
    assert replies(futures) == TEXTS
    assert trips.call_count == 2


def test_a_silent_redis_delays_all_at_once(silent_port: int, pool: ThreadPoolExecutor) -> None:
    """Calls waiting behind one that times out fail with it, unsent."""
    futures, trips = behind_one(commit(silent_port), pool)
    assert [type(one) for one in replies(futures)] == [redis.TimeoutError] * THREADS
    assert trips.call_count == 1


def test_an_error_affects_one_call(redis_port: int, pool: ThreadPoolExecutor) -> None:
    """The script's error for one call does not affect others of the same round trip."""
    picky = commit(redis_port, PICKY)
    texts = ["bad" if number % 3 == 0 else str(number) for number in range(300)]
    found = replies([pool.submit(picky, [], [one]) for one in texts])
    assert [str(one).lower() for one in found] == texts
    assert sum(isinstance(one, redis.ResponseError) for one in found) == 100


def test_calls_work_again_after_an_outage(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """A refused connection fails only the current calls; the next one connects again."""
    port = support.free_ports(1)
    echo = commit(port)
    found = replies([pool.submit(echo, [], [text]) for text in TEXTS])
    assert [type(one) for one in found] == [redis.ConnectionError] * THREADS
    with support.redis_server(tmp_path / "redis", port):
        assert echo([], ["here"]) == "here"


def test_an_unexpected_error_fails_one_round_trip(
    redis_port: int, pool: ThreadPoolExecutor
) -> None:
    """Its callers get the error, and the next round trip works."""
    echo = commit(redis_port)
    args = [object() if number % 10 == 0 else str(number) for number in range(200)]
    found = replies([pool.submit(echo, [], [one]) for one in args])
    assert {type(one) for one in found} <= {redis.DataError, str}
    assert isinstance(found[0], redis.DataError)
    assert echo([], ["here"]) == "here"
