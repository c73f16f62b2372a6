"""The doctor's checks of the services' Redis."""

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from services.common import store
from tests.devtools.conftest import one, running, wrong
from tests.support import free_ports, program, redis_answers, redis_server, wait_until


def test_redis_must_keep_transactions(environ: dict[str, str], tmp_path: Path) -> None:
    """A Redis that evicts or has no append-only file is a fault, also an external one."""
    port = free_ports(1)
    options = "--appendonly", "no", "--maxmemory-policy", "allkeys-lru"
    with redis_server(tmp_path / "redis", port, *options):
        items = running(environ, REDIS_URL=f"redis://127.0.0.1:{port}/0").redis()
    assert [item.name for item in wrong(items)] == ["append-only file", "when full"]


def test_a_redis_that_cannot_write_must_not_be_stopped(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """What it acknowledged as the disk filled up is only in its memory: `doctor` says so."""
    url = f"redis://127.0.0.1:{(port := free_ports(1))}/0"
    start = f"exec redis-server services/redis/redis.conf --port {port} --dir {tmp_path}"
    full = ["sh", "-c", f"trap '' XFSZ; ulimit -f 4; {start}"]  # blocks of 512 or 1,024 bytes
    with program(full, environ=os.environ, output=tmp_path / "log"):
        wait_until(lambda: redis_answers(url))
        with redis.Redis.from_url(url) as client:
            assert client.set("acknowledged", "x" * 8192)
        [fault] = wrong(running(environ, REDIS_URL=url).redis())
    assert (fault.name, fault.value) == ("last write to it", "err")
    assert "before you stop Redis" in fault.remedy
    with redis_server(tmp_path, port), redis.Redis.from_url(url) as client:
        assert not client.exists("acknowledged"), "so the stop above has lost it"


def test_a_redis_that_the_services_cannot_use_is_a_fault(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """As at the start: of the other kind, or one that refuses writes; `doctor` writes nothing."""
    port = free_ports(1)
    environ |= {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    options = "--min-replicas-to-write", "1"
    with redis_server(tmp_path / "idle", port, *options), redis.Redis(port=port) as client:
        [fault] = wrong(running(environ).redis())
        assert (fault.name, fault.value) == ("a write", "refused")
        assert "NOREPLICAS" in fault.note
        client.config_set("min-replicas-to-write", 0)
        assert wrong(running(environ).redis()) == []
        assert client.dbsize() == 0
        client.execute_command("ACL", "SETUSER", "default", "-ping", "-@hash")
        [fault] = wrong(running(environ).redis())
        assert (fault.name, fault.value) == ("permissions", "missing")
        assert "PING, HDEL, HEXISTS" in fault.note
        client.execute_command("ACL", "SETUSER", "default", "+@all", "-@scripting")
        [fault] = wrong(running(environ).redis())
        assert (fault.name, "no permissions" in fault.note) == ("permissions", True)
        [fault] = wrong(running(environ, REDIS_CLUSTER="1", PARTITIONS="4").redis())
        assert fault.note.endswith("is a single Redis: unset REDIS_CLUSTER")
    bus = "--cluster-port", str(free_ports(1))
    with redis_server(tmp_path / "cluster", port, "--cluster-enabled", "yes", *bus):
        [fault] = wrong(running(environ).redis())
        assert fault.note.endswith("is a node of a Redis Cluster: set REDIS_CLUSTER=1")
        [fault] = wrong(running(environ, REDIS_CLUSTER="1", PARTITIONS="4").redis())
        assert fault.note.startswith("the cluster's nodes have no slots")


@pytest.mark.parametrize(("status", "count"), [("processing", 1), ("captured", 0)])
def test_open_transactions_in_no_queue_are_counted(
    client: Any, redis_port: int, environ: dict[str, str], status: str, count: int
) -> None:
    client.xgroup_create(store.WHOLE.queue, store.GROUP, id="0", mkstream=True)
    key = store.WHOLE.transaction("00000000-0000-4000-8000-000000000000")
    client.hset(key, mapping={"status": status, "entry": "1-1"})
    found = running(environ, REDIS_URL=f"redis://127.0.0.1:{redis_port}/0").redis()
    assert one(found, "orphaned transactions").value == str(count)
    assert [item.status for item in wrong(found)] == ["warning"] * count


@pytest.mark.parametrize(("seconds", "count"), [(1, 0), (100, 1)])
def test_a_payment_that_does_not_end_is_a_warning(
    client: Any, redis_port: int, environ: dict[str, str], seconds: int, count: int
) -> None:
    """Such as one that is charged but cannot be saved, because the merchant's points are broken."""
    client.xadd(store.WHOLE.queue, {"id": "x"}, id=f"{int((time.time() - seconds) * 1000)}-0")
    found = wrong(running(environ, REDIS_URL=f"redis://127.0.0.1:{redis_port}/0").redis())
    assert [(item.name, item.status) for item in found] == [
        ("oldest queue entry", "warning")
    ] * count


@pytest.mark.parametrize(
    ("forbidden", "name"),
    [("-evalsha", "orphaned transactions"), ("-info", "redis://")],
)
def test_only_a_key_of_another_type_is_to_be_deleted(
    client: Any, redis_port: int, environ: dict[str, str], forbidden: str, name: str
) -> None:
    """Any other error of Redis is shown as it is: deleting a key would lose payments."""
    client.hset(store.WHOLE.transaction("00000000-0000-4000-8000-000000000000"), "status", "queued")
    client.set(store.WHOLE.queue, "x")
    fault = wrong(running(environ, REDIS_URL=f"redis://127.0.0.1:{redis_port}/0").redis())[-1]
    assert "delete it" in fault.remedy
    client.acl_setuser(
        "a", enabled=True, nopass=True, keys="*", categories=["+@all"], commands=[forbidden]
    )
    found = running(environ, REDIS_URL=f"redis://a:x@127.0.0.1:{redis_port}/0").redis()
    client.acl_deluser("a")
    fault = wrong(found)[-1]
    assert fault.name.startswith(name)
    assert ("permissions" in fault.note, fault.remedy) == (True, "")


@pytest.mark.usefixtures("client")
def test_a_suspended_replica_is_a_fault(
    redis_port: int, environ: dict[str, str], tmp_path: Path
) -> None:
    """It confirms nothing, although Redis calls it online for a minute."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    options = "--appendonly", "no", "--replicaof", "127.0.0.1", str(redis_port)

    def faults() -> list[tuple[str, str]]:
        found = running(environ, REDIS_URL=url, REDIS_REPLICAS_MIN="1").redis()
        return [(item.name, item.value) for item in wrong(found)]

    with (
        redis_server(tmp_path / "replica", port := free_ports(1), *options),
        redis.Redis(port=port) as node,
    ):
        wait_until(lambda: not faults(), what="the replica")
        replica = psutil.Process(node.info("server")["process_id"])
        replica.suspend()
        try:
            wait_until(lambda: faults() == [("replicas", "0")], what="the fault")
        finally:
            replica.resume()
