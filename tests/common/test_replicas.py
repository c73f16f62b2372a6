"""With REDIS_REPLICAS_MIN, a 202 means that a replica has the transaction."""

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from services.common import redis_check, redis_client, scripts, store
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector.queue import Queue
from services.psp_connector.settings import ConnectorSettings
from tests import support
from tests.support import confirms, wait_until

REQUEST = TransactionRequest(amount=1250, currency="USD")
# A new replica writes its append-only file again, and takes no replicas of its own meanwhile.
NO_FILE = ("--appendonly", "no")


@pytest.fixture(autouse=True)
def _long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    # Redis sends to a new replica only after its next acknowledgement, which comes each second.
    monkeypatch.setattr(scripts, "_WAIT_MS_MAX", 1500)


def settings(url: str, **more: str) -> ConnectorSettings:
    other = {"HTTP_PORT": "1", "PSP_URL": "http://127.0.0.1:1"}
    return ConnectorSettings.read({**other, "REDIS_URL": url, **more})


@pytest.fixture
def replica(redis_port: int, client: Any, tmp_path: Path) -> Iterator[Any]:
    """A client of a replica that has caught up."""
    with node(tmp_path / "replica", support.free_ports(1)) as other:
        other.replicaof("127.0.0.1", redis_port)
        wait_until(partial(confirms, client), what="the replica")
        yield other


def test_a_transaction_without_a_replica_is_not_accepted(
    redis_port: int, client: Any, replica: Any
) -> None:
    """A repeat with the same key, on a new connection, is accepted once a replica has it."""
    url = f"redis://127.0.0.1:{redis_port}/0"

    def accept() -> Any:
        fresh = redis_client.connect(url, timeout_seconds=2)
        return Transactions(fresh, 100, replicas_min=1).accept(1, REQUEST, "req", "k")

    replica.replicaof("NO", "ONE")
    for _ in range(2):
        with pytest.raises(scripts.NotReplicatedError, match=r"^0 of 1 replicas"):
            accept()
    assert client.xlen(store.WHOLE.queue) == 1
    safe = settings(url, REDIS_REPLICAS_MIN="1")
    with pytest.raises(redis_check.MismatchError, match=r"^REDIS_REPLICAS_MIN=1, but Redis has no"):
        redis_check.check(client, safe)
    Queue(client, settings(url), "one").join()
    waiting = Queue(client, safe, "one")
    entries = waiting.read(10)
    with pytest.raises(scripts.NotReplicatedError):
        waiting.begin(entries)
    replica.replicaof("127.0.0.1", redis_port)
    wait_until(partial(confirms, client), what="the replica")
    assert accept().replayed
    [work] = waiting.begin(entries)
    assert work.attempt == 1, "what was not charged is no attempt"
    assert replica.hget(store.WHOLE.transaction(work.charge.transaction_id), "status")


def test_a_replica_is_refused(client: Any, replica: Any) -> None:
    """Also one that has the platform's data already, so that nothing is to be written."""
    single = settings(f"redis://127.0.0.1:{replica.get_connection_kwargs()['port']}")
    redis_check.check(client, single)
    wait_until(lambda: replica.get(store.COUNT_KEY), what="the data")
    with pytest.raises(redis.ReadOnlyError, match="leads to a replica; it must lead to the prim"):
        redis_check.check(replica, single)


@pytest.mark.usefixtures("replica")
def test_too_few_replicas_are_refused_before_the_start(client: Any, redis_port: int) -> None:
    """Nothing would be accepted; services that run already wait for the others."""
    url = f"redis://127.0.0.1:{redis_port}"
    redis_check.before_start(client, settings(url, REDIS_REPLICAS_MIN="1"))
    two = settings(url, REDIS_REPLICAS_MIN="2")
    redis_check.check(client, two)
    with pytest.raises(
        redis_check.MismatchError, match=r"_MIN=2, but Redis has fewer rep.* \(1\): noth"
    ):
        redis_check.before_start(client, two)


def test_a_partition_without_its_replicas_takes_no_slots(
    redis_port: int, client: Any, replica: Any
) -> None:
    """It does not join: calls that cannot begin would keep slots from the other partitions."""
    queue = Queue(
        client, settings(f"redis://127.0.0.1:{redis_port}/0", REDIS_REPLICAS_MIN="1"), "one"
    )
    program = replica.info("server")["process_id"]
    os.kill(program, signal.SIGSTOP)
    try:
        with pytest.raises(scripts.NotReplicatedError):
            queue.join()
    finally:
        os.kill(program, signal.SIGCONT)
    wait_until(partial(confirms, client), what="the replica")
    queue.join()


def test_reads_wait_for_no_replica(redis_port: int, replica: Any) -> None:
    """Nor are they refused while a write waits for one, as for a Redis that hangs."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    client = redis_client.connect(url, timeout_seconds=2)
    transactions = Transactions(client, 100, replicas_min=1)
    transactions.accept(1, REQUEST, "req", None)
    program = replica.info("server")["process_id"]
    os.kill(program, signal.SIGSTOP)
    try:
        with pytest.raises(scripts.NotReplicatedError):
            transactions.accept(1, REQUEST, "req", None)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(transactions.accept, 1, REQUEST, "req", None)
            while not waiting.done():
                assert transactions.page(1, 10, None).transactions
            assert isinstance(waiting.exception(), scripts.NotReplicatedError)
    finally:
        os.kill(program, signal.SIGCONT)


@pytest.mark.parametrize("key", [None, "k"])
def test_a_repeated_accept_writes(client: Any, key: str | None) -> None:
    """Without a write, WAIT on a new connection would not cover the first call."""
    same = uuid.uuid4()
    # Without a key, only the client library repeats a call.
    transactions = Transactions(client, 100, new_id=uuid.uuid4 if key else lambda: same)
    transactions.accept(1, REQUEST, "req", key)
    changes = client.info("persistence")["rdb_changes_since_last_save"]
    transactions.accept(1, REQUEST, "req", key)
    assert client.info("persistence")["rdb_changes_since_last_save"] > changes


@pytest.mark.parametrize(
    ("fate", "replicas_min"),
    [
        ("demoted", 0), ("demoted", 1), ("restarted", 1), ("isolated", 1), ("refusing", 0),
        ("refusing", 1),
    ],
)  # fmt: skip
def test_a_moved_address_is_followed(tmp_path: Path, fate: str, replicas_min: int) -> None:
    """Each process leaves the old primary, although its connections stay open (managed Redis).

    The old primary is a replica now, which after a restart has no scripts, or it has lost its
    replicas, and perhaps refuses writes without them (min-replicas-to-write).
    """
    first, link = support.free_ports(3), tmp_path / "redis"
    with contextlib.ExitStack() as stack:
        nodes = [node(tmp_path / name, first + number) for number, name in enumerate("abc")]
        old, new, third = map(stack.enter_context, nodes)
        new.replicaof("127.0.0.1", first)
        wait_until(partial(confirms, old), what="the replica")
        link.symlink_to(tmp_path / "a.sock")
        url = f"unix://{link}"
        chosen = settings(url, REDIS_REPLICAS_MIN=str(replicas_min))
        one, other = (redis_client.connect(url, timeout_seconds=2) for _ in range(2))
        transactions = Transactions(one, 100, replicas_min=replicas_min)
        steps = [
            Queue(other, chosen, "one").join,
            lambda: transactions.accept(1, REQUEST, "req", None),
        ]
        thread = stack.enter_context(ThreadPoolExecutor(1))  # with its own connection
        for step in steps:
            thread.submit(step).result(10)
        new.replicaof("NO", "ONE")
        third.replicaof("127.0.0.1", first + 1)
        if fate == "refusing":
            old.config_set("min-replicas-to-write", 1)
        elif fate != "isolated":
            old.replicaof("127.0.0.1", first + 1)
        if fate == "restarted":
            old.script_flush()
        wait_until(partial(confirms, new), what="the replica of the new primary")
        for step in steps:
            with pytest.raises(redis.RedisError):
                thread.submit(step).result(10)
        link.unlink()
        link.symlink_to(tmp_path / "b.sock")
        for step in [*steps, one.connection_pool.close, other.connection_pool.close]:
            thread.submit(step).result(10)


@contextlib.contextmanager
def node(folder: Path, port: int) -> Iterator[Any]:
    """A Redis with a socket next to its folder; yields a client."""
    with (
        support.redis_server(folder, port, *NO_FILE, "--unixsocket", f"{folder}.sock"),
        redis.Redis(port=port) as client,
    ):
        yield client
