import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from services.common import redis_client
from tests import support


def connect(port: int, options: str = "", timeout_seconds: float = 2) -> Any:
    url = f"redis://127.0.0.1:{port}/0{options}"
    return redis_client.connect(url, timeout_seconds=timeout_seconds)


def test_a_thread_keeps_its_connection(redis_port: int) -> None:
    """Each thread has one connection of its own."""
    client = connect(redis_port)
    together = threading.Barrier(4)

    def look(_number: int) -> set[int]:
        together.wait(10)  # so that each of the four threads has one of the four tasks
        return {client.client_id() for _ in range(3)}

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(look, range(4)))
    assert [len(ids) for ids in seen] == [1] * 4
    assert len(set.union(*seen)) == 4


def test_a_thread_that_ends_gives_its_connection_back(redis_port: int) -> None:
    """An ended thread's connection is closed and does not count towards redis-py's limit."""
    client = connect(redis_port, "?max_connections=2")
    before = len(client.client_list())
    for _ in range(4):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(client.ping).result()
    support.wait_until(lambda: len(client.client_list()) == before, what="closed connections")


def test_a_closed_connection_is_replaced(tmp_path: Path) -> None:
    """A restart of Redis between two commands does not fail the second one."""
    port = support.free_ports(1)
    with support.redis_server(tmp_path / "redis", port):
        client = connect(port)
        client.set("kept", "yes")
    with support.redis_server(tmp_path / "redis", port):
        assert client.get("kept") == "yes"


def test_an_error_shows_no_password(tmp_path: Path) -> None:
    """A Redis that does not know AUTH repeats its arguments."""
    port = support.free_ports(1)
    with support.redis_server(tmp_path / "redis", port, "--rename-command", "AUTH", ""):
        client = redis_client.connect(f"redis://:hunter2@127.0.0.1:{port}/0", timeout_seconds=2)
        with pytest.raises(redis.RedisError) as error:
            client.ping()
    assert str(error.value) == "unknown command 'AUTH'"


def test_a_late_reply_is_never_read(redis_port: int) -> None:
    """A connection is closed after a timeout."""
    client = connect(redis_port, timeout_seconds=0.2)
    with pytest.raises(redis.TimeoutError):
        client.blpop(["nothing"], timeout=1)
    assert client.echo("here") == "here"


def test_connections_are_not_shared_after_a_fork(redis_port: int) -> None:
    client = connect(redis_port)
    before = client.client_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(client.client_id()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert before != int(os.read(reader, 20))
    assert before == client.client_id()
    os.close(reader)
    os.close(writer)
