"""Nodes that join a Redis Cluster, and leave it, while services run."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from services.common import redis_check, redis_client, scripts, store
from services.common.redis_url import RedisSettings
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector import queue
from services.psp_connector.settings import ConnectorSettings
from tests.cluster import RedisCluster, joins, redis_cluster
from tests.common.test_redis_check import COMMAND_RULES, KEY_RULES
from tests.support import free_ports, redis_server, wait_until

PARTITIONS = store.partitions(4)
REQUEST = TransactionRequest(amount=1250, currency="USD")


def user_of(partition: store.Partition) -> int:
    return next(n for n in range(1000) if store.partition_of(n, PARTITIONS) == partition)


def move_keys(old: Any, new: Any, partition: store.Partition, port: int) -> None:
    """Begins to move a slot, with all of its keys, and does not end it."""
    slot = key_slot(partition.queue.encode())
    new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old.execute_command("CLUSTER MYID"))
    old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new.execute_command("CLUSTER MYID"))
    names = old.execute_command("CLUSTER GETKEYSINSLOT", slot, 10_000)
    old.migrate("127.0.0.1", port, names, 0, 5000)


@contextlib.contextmanager
def single_node(folder: Path, *, slots: bool) -> Iterator[tuple[Any, int, int]]:
    """A cluster's node with all slots or none: its client, port and bus port."""
    port, bus = free_ports(1), free_ports(1)
    options = "--cluster-enabled", "yes", "--cluster-port", str(bus)
    with (
        redis_server(folder, port, *options),
        redis.Redis(port=port, decode_responses=True) as node,
    ):
        if slots:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            wait_until(lambda: node.cluster("INFO")["cluster_state"] == "ok", what="the slots")
        yield node, port, bus


def test_payments_on_their_way_to_a_new_node_are_read(tmp_path: Path) -> None:
    """Its first slot: until the end of the move, redis-py does not know the node."""
    with (
        single_node(tmp_path / "old", slots=True) as (old, port, _),
        single_node(tmp_path / "new", slots=False) as (new, target, bus),
        contextlib.closing(connected(port)) as client,
    ):
        old.execute_command("CLUSTER", "MEET", "127.0.0.1", target, bus)
        wait_until(lambda: new.cluster("INFO")["cluster_state"] == "ok")
        transactions, user_id = Transactions(client, 10**6, PARTITIONS), user_of(PARTITIONS[1])
        accepted = transactions.accept(user_id, REQUEST, "req", None).transaction_id
        client.set(PARTITIONS[1].points(user_id), 5)
        move_keys(old, new, PARTITIONS[1], target)
        found = transactions.get(user_id, accepted)
        assert found is not None
        assert transactions.page(user_id, 10, None).transactions == [found]
        assert transactions.loyalty(user_id, 10, None).points == 5


def connected(*ports: int) -> Any:
    url = ",".join(f"redis://127.0.0.1:{port}" for port in ports)
    client = redis_client.connect(url, timeout_seconds=2, cluster=True)
    client.ping()
    return client


def test_redis_url_leads_to_nodes_that_have_replaced_all_others(tmp_path: Path) -> None:
    """As the address of a managed cluster does, also for a service that had no requests."""
    with (
        single_node(tmp_path / "new", slots=True) as (_, address, _),
        contextlib.ExitStack() as old,
    ):
        _, port, _ = old.enter_context(single_node(tmp_path / "old", slots=True))
        with contextlib.closing(connected(address, port)) as client:
            old.close()
            redis_client.ping(client)
            client.set("key", "value")


@pytest.mark.parametrize("claimed", [0, 1000])
def test_a_node_that_was_taken_out_does_not_replace_the_others(
    tmp_path: Path, claimed: int
) -> None:
    """While they do not respond. After a restart it claims the slots of the keys that it has."""
    with single_node(tmp_path / "out", slots=False) as (out, address, _):
        if claimed:
            out.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, claimed)
        with single_node(tmp_path / "node", slots=True) as (_, port, _):
            client = connected(address, port)
        for _ in range(3):
            for command in (lambda: client.get("key"), lambda: redis_client.ping(client)):
                with pytest.raises(redis_client.ERRORS):
                    command()
        assert list(client.nodes_manager.nodes_cache) == [f"127.0.0.1:{port}"]
        client.close()


def test_a_user_of_the_documented_rules_is_enough(tmp_path: Path) -> None:
    """A start needs the user on each node, and names a node that does not know it."""
    rules = f"{COMMAND_RULES} +cluster|slots +cluster|nodes {KEY_RULES[16]}".split()
    with redis_cluster(tmp_path / "cluster") as cluster:
        for number in cluster.nodes:
            with cluster.client(number) as node:
                node.execute_command("ACL SETUSER", "some", "on", "nopass", *rules)
        url = cluster.url.replace("redis://", "redis://some:x@")
        required = {"REDIS_CLUSTER": "1", "PARTITIONS": "16", "REDIS_REPLICAS_MIN": "1"}
        settings = RedisSettings.read(required | {"REDIS_URL": url})

        def start() -> None:
            with contextlib.closing(redis_client.connect_to(settings, 2)) as client:
                redis_check.before_start(client, settings)

        start()
        with cluster.client(2) as node:
            node.acl_deluser("some")
        place = f"127.0.0.1:{cluster.first_port + 2}"
        with pytest.raises(redis.AuthenticationError, match=f" disabled.* at {place}$"):
            start()


def test_connected_services_need_no_node_of_redis_url(tmp_path: Path) -> None:
    """Its only start node dies; a lane that joins again uses those that have taken over."""
    with redis_cluster(tmp_path / "cluster") as cluster:
        lane = a_lane(cluster)
        lane.join()
        cluster.kill(0)
        wait_until(lambda: 0 not in cluster.current_primaries(), what="the failover")
        wait_until(lambda: joins(lane), what="a lane that joins")


def a_lane(cluster: RedisCluster) -> queue.Queue:
    """The lane of a connector whose REDIS_URL is the first node, which has its partition."""
    environ = {"REDIS_CLUSTER": "1", "PARTITIONS": "4", "REDIS_URL": cluster.url_of(0)}
    settings = ConnectorSettings.read(environ | {"HTTP_PORT": "1", "PSP_URL": "http://127.0.0.1:1"})
    client = redis_client.connect_to(settings, timeout_seconds=2)
    [partition, *_] = [one for one in PARTITIONS if cluster.owner(one) == 0]
    return queue.Queue(client, settings, "one", partition)


def test_the_address_that_a_node_has_lost_is_asked_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes that swap addresses lose each other's, and report port 0 for it."""
    ask: Any = redis.Redis.execute_command
    with redis_cluster(tmp_path / "cluster", replicas=0) as cluster:
        knows_not, lost = cluster.first_port, cluster.first_port + 1

        def execute_command(node: Any, *args: Any, **options: Any) -> Any:
            reply = ask(node, *args, **options)
            if args != ("CLUSTER SLOTS",) or node.get_connection_kwargs()["port"] != knows_not:
                return reply
            return [
                [first, last, ["", 0, address[2]] if address[1] == lost else address]
                for first, last, address in reply
            ]

        monkeypatch.setattr(redis.Redis, "execute_command", execute_command)
        keys = [f"key {number}" for number in range(30)]  # on each node
        uses: tuple[Callable[[Any, str], Any], ...] = (
            lambda client, key: client.set(key, "value"),
            lambda client, key: scripts.run_script(client, scripts.Script("return 1"), [key], []),
        )
        for use in uses:
            with contextlib.closing(connected(knows_not)) as client:
                for _ in range(3):
                    assert all(use(client, key) for key in keys)
                    client.find_nodes()
