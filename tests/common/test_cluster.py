"""A Redis Cluster behind the client: redirections, a moved slot, a dead primary, a mismatch."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import MovedError

from services.common import redis_check, redis_client, scripts, store
from services.common.redis_url import RedisSettings
from services.common.server import THREADS
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector import queue
from services.psp_connector.settings import ConnectorSettings
from tests.cluster import RedisCluster, certificate, connect, joins, redis_cluster
from tests.support import free_ports, redis_server, wait_until

COUNT = 8
PARTITIONS = store.partitions(COUNT)
# One of each partition.
USERS = {store.partition_of(user_id, PARTITIONS): user_id for user_id in range(200)}
REQUEST = TransactionRequest(amount=1250, currency="USD")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """With TLS and a password; tests/chaos has one without."""
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        # Otherwise each connection loads all of the system's certificates, which takes 25 ms.
        patch.setenv("SSL_CERT_FILE", os.devnull)
        with redis_cluster(folder, certificate=certificate(folder)) as cluster:
            yield cluster


def test_the_wrong_kind_is_refused(cluster: RedisCluster, redis_port: int) -> None:
    """A cluster's node is refused as a single Redis, and the reverse."""
    node = cluster.url_of(0)
    single = f"redis://127.0.0.1:{redis_port}"
    with pytest.raises(redis_check.MismatchError, match=r"set REDIS_CLUSTER=1$"):
        redis_check.check(
            redis_client.connect(node, timeout_seconds=2), RedisSettings.read({"REDIS_URL": node})
        )
    of_a_cluster = {"REDIS_CLUSTER": "1", "PARTITIONS": str(COUNT), "REDIS_REPLICAS_MIN": "1"}
    client = redis_client.connect(single, timeout_seconds=2, cluster=True)
    with pytest.raises(redis_check.MismatchError, match=r"unset REDIS_CLUSTER$"):
        redis_check.check(client, RedisSettings.read({**of_a_cluster, "REDIS_URL": single}))
    settings = RedisSettings.read({**of_a_cluster, "REDIS_URL": cluster.url})
    redis_check.check(connect(cluster), settings)


def test_slots_that_come_back_are_found(tmp_path: Path) -> None:
    """After a repair, or when the cluster was created again; no process needs a restart."""
    port = free_ports(1)
    options = "--cluster-enabled", "yes", "--cluster-port", str(free_ports(1))
    given = {"REDIS_CLUSTER": "1", "PARTITIONS": "4", "REDIS_URL": f"redis://127.0.0.1:{port}"}
    settings = RedisSettings.read(given)
    client = redis_client.connect_to(settings, timeout_seconds=2)
    with redis_server(tmp_path / "node", port, *options), redis.Redis(port=port) as node:
        for _ in range(3):
            for _ in range(2):
                with pytest.raises(redis_client.ERRORS, match="cluster's nodes have no slots"):
                    redis_check.check(client, settings)
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            wait_until(lambda: node.cluster("INFO")["cluster_state"] == "ok")
            redis_check.check(client, settings)
            node.execute_command("CLUSTER", "DELSLOTSRANGE", 0, 16_383)
            wait_until(lambda: node.cluster("INFO")["cluster_state"] == "fail")
    client.close()


def test_a_moved_slot_is_followed(cluster: RedisCluster) -> None:
    """Clients follow MOVED without a restart; nothing is lost or repeated during the move."""
    client = connect(cluster)
    transactions = Transactions(client, 10**6, PARTITIONS)
    partition, user_id = next(iter(USERS.items()))
    first = transactions.accept(user_id, REQUEST, "req", "k")
    source = cluster.owner(partition)
    target = next(number for number in cluster.current_primaries() if number != source)
    node = redis_client.nodes(client)[scripts.lane(client, partition)]
    with cluster.moving(partition, target):
        assert not accepts(transactions, user_id), "its keys are in two places: 503"
    [reply] = scripts.run_scripts(node, [(scripts.Script("return 1"), [partition.queue], [])])
    assert isinstance(reply, MovedError), "the client of one node, as of the sweep, cannot follow"
    again = transactions.accept(user_id, REQUEST, "req", "k")
    assert again.transaction_id == first.transaction_id
    assert again.replayed
    assert cluster.owner(partition) == target


def test_a_moved_slot_is_followed_before_all_nodes_know(cluster: RedisCluster) -> None:
    """The slots are read from the node that MOVED names, not from one that knows less."""
    partition, ping = PARTITIONS[0], scripts.Script("return 1")
    source, ids = cluster.owner(partition), cluster.current_primaries()
    target, late = set(ids) - {source}
    client = connect(cluster)
    client.nodes_manager.move_node_to_end_of_cached_nodes(
        f"127.0.0.1:{cluster.first_port + target}"
    )
    with cluster.moving(partition, target):
        pass
    with cluster.client(late) as node:
        slot = key_slot(partition.queue.encode())
        node.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[source])
        assert scripts.run_script(client, ping, [partition.queue], []) == 1
    wait_until(cluster.agrees, what="nodes that agree on the slots")


def test_a_retry_waits_until_its_slot_has_moved(cluster: RedisCluster) -> None:
    """Without its record, which moved first, it would be queued without a merchant."""
    client = connect(cluster)
    partition, user_id = next(iter(USERS.items()))
    accepted = Transactions(client, 10**6, PARTITIONS).accept(user_id, REQUEST, "req", None)
    client.xtrim(partition.queue, 0)
    client.zadd(partition.retries, {accepted.transaction_id: 1})
    promote = scripts.script(queue.__file__, "promote.lua")
    keys, args = [partition.retries, partition.queue], [2, 10, 10**15, partition.transaction("")]
    target = next(n for n in cluster.current_primaries() if n != cluster.owner(partition))
    with cluster.moving(partition, target, "transaction:"), pytest.raises(redis.ResponseError):
        scripts.run_script(client, promote, keys, args)
    assert scripts.run_script(client, promote, keys, args) == 1
    [(_, entry)] = client.xrange(partition.queue)
    assert entry["user_id"] == str(user_id)


def test_a_planned_failover_is_followed(cluster: RedisCluster) -> None:
    """The demoted primary refuses WAIT and redirects scripts: requests go to the new one."""
    wait_until(cluster.is_healthy, what="a healthy cluster")
    transactions = Transactions(connect(cluster), 10**6, PARTITIONS, replicas_min=1)
    partition, user_id = next(iter(USERS.items()))
    assert accepts(transactions, user_id)
    old = cluster.owner(partition)
    with cluster.client(old) as client:
        [replica] = client.cluster("REPLICAS", cluster.current_primaries()[old])
    port = int(replica.partition("@")[0].rpartition(":")[2])
    with cluster.client(port - cluster.first_port) as client:
        client.execute_command("CLUSTER FAILOVER")
    wait_until(lambda: old not in cluster.current_primaries(), what="the failover")
    wait_until(lambda: accepts(transactions, user_id), seconds_max=5, what="an accepted payment")


def accepts(transactions: Transactions, user_id: int) -> bool:
    try:
        transactions.accept(user_id, REQUEST, "req", None)
    except redis_client.ERRORS:
        return False
    return True


def started(cluster: RedisCluster) -> tuple[Transactions, dict[int, queue.Queue]]:
    """A start of the stack: what preflight checks, a new core-api and a lane for each partition."""
    required = {"REDIS_CLUSTER": "1", "PARTITIONS": str(COUNT), "REDIS_REPLICAS_MIN": "1"}
    urls = {"REDIS_URL": cluster.url, "HTTP_PORT": "1", "PSP_URL": "http://127.0.0.1:1"}
    settings = ConnectorSettings.read(required | urls)
    client = connect(cluster)
    redis_check.before_start(client, settings)
    check = partial(redis_check.check, client, settings)
    lanes = {one.number: queue.Queue(client, settings, "one", one) for one in PARTITIONS}
    return Transactions(client, 10**6, PARTITIONS, check=check), lanes


def test_a_dead_master_stops_its_partitions_only(cluster: RedisCluster) -> None:
    """Other partitions continue; the replica takes over without a restart of services.

    Also those of services that start meanwhile, even if it has the number of partitions.
    """
    wait_until(cluster.is_healthy, what="a healthy cluster")
    transactions, queues = started(cluster)
    assert all(map(joins, queues.values()))
    client: Any = connect(cluster)
    lanes = {user_id: scripts.lane(client, partition) for partition, user_id in USERS.items()}
    dead = client.lane(store.COUNT_KEY)
    expected = {user_id for user_id, lane in lanes.items() if lane == dead}
    number = int(dead.rpartition(":")[2]) - cluster.first_port
    assert accepts(transactions, next(iter(lanes)))
    cluster.kill(number)
    began = time.monotonic()
    refused = {user_id for user_id in lanes if not accepts(transactions, user_id)}
    assert time.monotonic() - began < 3
    assert refused == expected
    transactions, queues = started(cluster)
    for partition, user_id in USERS.items():
        if user_id not in expected:
            assert joins(queues[partition.number])
            assert accepts(transactions, user_id)
    wait_until(lambda: all(accepts(transactions, user_id) for user_id in lanes), what="failover")
    cluster.start(number)


def test_a_hanging_master_holds_up_no_others(cluster: RedisCluster) -> None:
    """Its requests do not occupy all threads: one tries it, and others fail at once, unsent."""
    wait_until(cluster.is_healthy, what="a healthy cluster")
    transactions, _queues = started(cluster)
    client = connect(cluster)
    lanes = {user_id: scripts.lane(client, partition) for partition, user_id in USERS.items()}
    assert all(accepts(transactions, user_id) for user_id in lanes)
    hanging, *others = lanes
    node = redis_client.nodes(client)[lanes[hanging]]
    others = [user_id for user_id in others if lanes[user_id] != lanes[hanging]]
    refusals: list[str] = []

    def refused() -> None:
        try:
            transactions.accept(hanging, REQUEST, "req", None)
        except redis_client.ERRORS as error:
            refusals.append(str(error))

    with contextlib.closing(client), ThreadPoolExecutor(THREADS) as pool:
        node.client_pause(timeout=60_000, all=False)  # writes
        try:
            for _ in range(10 * THREADS):
                pool.submit(refused)
            assert pool.submit(accepts, transactions, others[0]).result(30)
        finally:
            node.client_unpause()
    at_once = [text for text in refusals if "another request is trying" in text]
    assert len(at_once) > 8 * THREADS


def test_a_lost_number_of_partitions_is_known_from_its_copies(cluster: RedisCluster) -> None:
    """As after FLUSHALL of its node alone; with another one, payments would not be found."""
    wait_until(cluster.is_healthy, what="a healthy cluster")
    assert all(map(joins, started(cluster)[1].values()))
    with contextlib.closing(connect(cluster)) as client:
        client.delete(store.COUNT_KEY)
        more = {"REDIS_CLUSTER": "1", "PARTITIONS": str(2 * COUNT), "REDIS_URL": cluster.url}
        with pytest.raises(redis_check.MismatchError, match=f"has {COUNT}: set PARTITIONS="):
            redis_check.check(client, RedisSettings.read(more))
        assert all(map(joins, started(cluster)[1].values()))


def test_a_full_cluster_gets_copies_of_the_number(cluster: RedisCluster) -> None:
    """Of data of a version without them: only a connector that joins drains the queue."""
    wait_until(cluster.is_healthy, what="a healthy cluster")
    with contextlib.closing(connect(cluster)) as client:
        for partition in PARTITIONS:
            client.delete(partition.count)
        nodes = redis_client.nodes(client).values()
        try:
            for node in nodes:
                node.config_set("maxmemory", "1")
            assert all(map(joins, started(cluster)[1].values()))
            assert all(client.get(partition.count) == str(COUNT) for partition in PARTITIONS)
        finally:
            for node in nodes:
                node.config_set("maxmemory", "0")


def test_a_master_without_writes_stops_its_partitions_only(cluster: RedisCluster) -> None:
    """A start is refused only if none takes any."""
    wait_until(cluster.is_healthy, what="a healthy cluster")
    started(cluster)
    with contextlib.closing(connect(cluster)) as client:
        nodes = redis_client.nodes(client)
        try:
            nodes[client.lane(store.COUNT_KEY)].config_set("min-replicas-to-write", 9)
            started(cluster)
            for node in nodes.values():
                node.config_set("min-replicas-to-write", 9)
            with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
                started(cluster)
        finally:
            for node in nodes.values():
                node.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize("command", ["ZADD", "CLUSTER|SLOTS", "CLUSTER|NODES"])
def test_a_start_names_each_node_without_a_permission(cluster: RedisCluster, command: str) -> None:
    """ACL SETUSER is for one node only, and easily forgotten on another."""
    wait_until(cluster.is_healthy, what="a healthy cluster")
    with contextlib.closing(connect(cluster)) as client:
        for name, node in redis_client.nodes(client).items():
            try:
                node.execute_command("ACL SETUSER", "default", f"-{command}")
                fault = re.escape(f"no permission for {command} at {name}")
                with pytest.raises(redis.ResponseError, match=fault):
                    started(cluster)
            finally:
                node.execute_command("ACL SETUSER", "default", "+@all")
