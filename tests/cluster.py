"""A Redis Cluster on the loopback: masters, one replica each, ended and begun again by tests."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import redis

from services.common import redis_client
from tests import support
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE_TIMEOUT_MS = 1000
SLOTS = 16384


class RedisCluster:
    """The nodes are numbered from 0; the masters at the beginning come first."""

    def __init__(self, folder: Path, masters: int, replicas: int) -> None:
        self._folder = folder
        self._programs: dict[int, subprocess.Popen[bytes]] = {}
        self.masters = masters
        self.replicas = replicas
        count = masters * (1 + replicas)
        self.first_port = support.free_ports(2 * count)
        self.nodes = range(count)

    @property
    def url(self) -> str:
        return ",".join(f"redis://127.0.0.1:{self.first_port + n}" for n in self.nodes)

    def client(self, number: int) -> Any:
        return redis.Redis(
            port=self.first_port + number,
            decode_responses=True,
            socket_timeout=2,
            retry=support.ONE_TRY,
        )

    def start(self, number: int) -> None:
        folder = self._folder / str(number)
        folder.mkdir(exist_ok=True)
        port, bus = self.first_port + number, self.first_port + len(self.nodes) + number
        config = folder / "redis.conf"
        parts = [
            (ROOT / f"services/redis/{name}.conf").read_text() for name in ("redis", "cluster")
        ]
        options = f"port {port}", f"cluster-port {bus}", f"cluster-node-timeout {NODE_TIMEOUT_MS}"
        config.write_text("\n".join((*parts, *options, f'dir "{folder}"', "hz 100")))
        with (folder / "log").open("ab") as log:
            self._programs[number] = subprocess.Popen(
                ["redis-server", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, number: int) -> None:
        """`kill -9`."""
        self._programs[number].send_signal(signal.SIGKILL)
        self._programs[number].wait(10)

    def stop(self) -> None:
        for program in self._programs.values():
            program.kill()
            program.wait(10)

    def masters_now(self) -> dict[int, str]:
        """The masters with slots, by number, and their ids, as a node that answers sees them."""
        for number in self.nodes:
            with contextlib.suppress(redis.RedisError), self.client(number) as client:
                return {
                    int(address.rpartition(":")[2].partition("@")[0]) - self.first_port: node["id"]
                    for address, node in self._named(client)
                    if "master" in node["flags"] and "fail" not in node["flags"] and node["slots"]
                }
        return {}

    def _named(self, client: Any) -> list[tuple[str, dict[str, Any]]]:
        found = client.cluster("NODES")
        return [
            (address, {"id": node["node_id"], "flags": node["flags"], "slots": node["slots"]})
            for address, node in found.items()
        ]

    def is_well(self) -> bool:
        """Each node answers, all slots are served, and each replica has caught up."""
        for number in self.nodes:
            try:
                with self.client(number) as client:
                    state = client.cluster("INFO")["cluster_state"]
                    facts = client.info("replication")
            except redis.RedisError:
                return False
            link = facts.get("master_link_status", "up")
            short = facts["role"] == "master" and facts["connected_slaves"] < self.replicas
            if state != "ok" or link != "up" or short:
                return False
        return True

    def cli(self, *arguments: str) -> None:
        """`redis-cli --cluster …` at the first node."""
        subprocess.run(
            ["redis-cli", "--cluster", *arguments, "--cluster-yes"],
            check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def empty(self) -> None:
        for number in self.masters_now():
            with self.client(number) as client:
                client.flushall()


@contextlib.contextmanager
def redis_cluster(folder: Path, masters: int = 3, replicas: int = 1) -> Iterator[RedisCluster]:
    """A cluster that is well when this returns."""
    folder.mkdir(exist_ok=True)
    cluster = RedisCluster(folder, masters, replicas)
    try:
        for number in cluster.nodes:
            cluster.start(number)
        for number in cluster.nodes:
            wait_until(lambda n=number: _answers(cluster, n), what="a node")  # type: ignore[misc]
        addresses = [f"127.0.0.1:{cluster.first_port + n}" for n in cluster.nodes]
        cluster.cli("create", *addresses, "--cluster-replicas", str(replicas))
        wait_until(cluster.is_well, what="a cluster that is well")
        yield cluster
    finally:
        cluster.stop()


def _answers(cluster: RedisCluster, number: int) -> bool:
    try:
        with cluster.client(number) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def connect(cluster: RedisCluster, timeout_seconds: float = 2) -> Any:
    return redis_client.connect(cluster.url, timeout_seconds=timeout_seconds, cluster=True)
