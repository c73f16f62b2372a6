"""The join of the stack's nodes: an interrupted one is redone, and data are kept."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from devtools import cluster, health, state
from devtools.address import BUS_OFFSET, CLUSTER_BLOCK, node_ports
from devtools.catalog import REDIS_NODES
from tests.support import free_ports, program, redis_answers, wait_until

PRIMARIES = 3
SLOTS = 16_384


class Nodes:
    """The nodes of a stack, each started as by process-compose."""

    def __init__(self, folder: Path) -> None:
        self.state = folder
        self.exit_stack = contextlib.ExitStack()
        self.programs: list[subprocess.Popen[bytes]] = []
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "redis-password").write_text("secret")

    def start(self) -> None:
        """Starts them on free ports; those that run end before it."""
        self.exit_stack.close()
        first = free_ports(CLUSTER_BLOCK)
        self.ports = node_ports(first)
        state.write_addresses(self.state, self.ports, BUS_OFFSET)  # as preflight does
        self.environ = {
            "PATH": os.environ["PATH"],
            "PC_SOCKET_PATH": str(self.state / "pc.sock"),
            "PLATFORM_PORT": str(first),
            "PLATFORM_STATE": str(self.state),
            "REDIS_PORT": str(self.ports[0]),
        }
        self.programs = [self.exit_stack.enter_context(self.run(name)) for name in REDIS_NODES]
        for port in self.ports:
            wait_until(partial(redis_answers, f"redis://:secret@127.0.0.1:{port}"), what="a node")
        self.clients: list[Any] = [
            redis.Redis(port=port, password="secret", decode_responses=True) for port in self.ports
        ]

    def run(self, name: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        command, log = ["sh", "services/redis/node.sh", name], self.state / f"logs/{name}.log"
        return program(command, environ=self.environ, output=log)

    def meet(self) -> None:
        """The first step of a join: each node knows all."""
        for port in self.ports:
            self.clients[0].execute_command("CLUSTER MEET", "127.0.0.1", port, port + 2)
        for client in self.clients:
            wait_until(lambda client=client: len(client.cluster("NODES")) == len(self.ports))  # type: ignore[misc]

    def add_slots(self) -> None:
        """The second: all slots are served, and no primary has a replica."""
        self.meet()
        for number, client in enumerate(self.clients[:PRIMARIES]):
            begin, end = (SLOTS * n // PRIMARIES for n in (number, number + 1))
            client.cluster("ADDSLOTSRANGE", begin, end - 1)
        for client in self.clients:
            wait_until(lambda client=client: client.cluster("INFO")["cluster_state"] == "ok")  # type: ignore[misc]

    def add_a_replica(self) -> None:
        self.add_slots()
        self.clients[PRIMARIES].cluster("REPLICATE", self.clients[0].cluster("MYID"))

    def ids(self) -> list[str]:
        """The ids of the nodes that run; a reset changes them."""
        running = zip(self.programs, self.clients, strict=True)
        return [client.cluster("MYID") for node, client in running if node.poll() is None]

    def join(self) -> int:
        return cluster.main(self.environ)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path)
    with nodes.exit_stack:
        nodes.start()
        yield nodes


@pytest.mark.parametrize("step", [Nodes.meet, Nodes.add_slots, Nodes.add_a_replica])
def test_an_interrupted_join_is_redone(nodes: Nodes, step: Callable[[Nodes], None]) -> None:
    """Whatever it lacked, each primary has its slots and a replica afterwards."""
    step(nodes)
    assert nodes.join() == 0
    roles = [client.info("replication") for client in nodes.clients]
    assert sorted(role["role"] for role in roles) == ["master"] * 3 + ["slave"] * 3
    assert [role["connected_slaves"] for role in roles if role["role"] == "master"] == [1, 1, 1]
    assert nodes.clients[0].cluster("INFO")["cluster_slots_ok"] == str(SLOTS)


def test_a_node_with_keys_is_never_reset(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The start fails, and `up -D` prints the remedy."""
    nodes.add_slots()
    [owner] = [client for client in nodes.clients if _set(client)]
    before = nodes.ids()
    monkeypatch.setattr(cluster, "_SECONDS_MAX", 1.0)
    assert nodes.join() == 1
    assert nodes.ids() == before
    assert owner.get("key") == "value"
    (nodes.state / "logs/redis-cluster.log").write_text(capsys.readouterr().err)
    assert health.wait(nodes.environ) == 1
    assert "`platform reset`" in capsys.readouterr().err


def test_a_complete_cluster_with_a_dead_node_is_not_reset(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is empty."""
    assert nodes.join() == 0
    nodes.programs[-1].kill()
    nodes.programs[-1].wait(10)
    before = nodes.ids()
    monkeypatch.setattr(cluster, "_SECONDS_MAX", 1.0)
    assert nodes.join() == 1
    assert nodes.ids() == before


class Node:
    """A primary that knows some of the replicas."""

    def __init__(self, known: int) -> None:
        self._nodes = {str(n): {"flags": "slave" if n < known else "master"} for n in range(6)}

    def info(self, _: str) -> dict[str, Any]:
        return {"role": "master", "slave0": {"state": "online"}}

    def cluster(self, command: str) -> dict[str, Any]:
        return {"cluster_state": "ok"} if command == "INFO" else self._nodes


def test_a_join_waits_until_all_know_all_replicas() -> None:
    """Nodes learn of them from one another; a service does not start if its node knows none."""
    assert [cluster.is_complete(Node(known)) for known in range(4)] == [False, False, False, True]


def test_data_are_found_after_a_change_of_ports(nodes: Nodes) -> None:
    """Each node has stored the others' addresses."""
    assert nodes.join() == 0
    [owner] = [number for number, client in enumerate(nodes.clients) if _set(client)]
    nodes.start()
    assert nodes.join() == 0
    assert nodes.clients[owner].get("key") == "value"


def test_a_copied_folder_is_another_cluster(nodes: Nodes, tmp_path: Path) -> None:
    """Although ids and passwords are the same, and the original runs."""
    assert nodes.join() == 0
    [owner] = [number for number, client in enumerate(nodes.clients) if _set(client)]
    shutil.copytree(tmp_path, tmp_path / "copy")
    copy = Nodes(tmp_path / "copy")
    with copy.exit_stack:
        copy.start()
        assert copy.join() == 0
        copy.clients[owner].set("key", "changed")
        for cluster_nodes in (nodes, copy):
            for client in cluster_nodes.clients:
                ports = set(cluster_nodes.ports)
                wait_until(lambda c=client, p=ports: p <= _known(c), what="all nodes")  # type: ignore[misc]
                assert _known(client) == ports
    assert nodes.clients[owner].get("key") == "value"


def _known(client: Any) -> set[int]:
    """The ports of the nodes that a node knows."""
    return {int(address.partition("@")[0].split(":")[1]) for address in client.cluster("NODES")}


def _set(client: Any) -> bool:
    with contextlib.suppress(redis.ResponseError):  # another node has its slot
        return bool(client.set("key", "value"))
    return False
