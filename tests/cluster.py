"""A Redis Cluster on the loopback: primaries with a replica each, stopped and started by tests."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import redis
from redis.crc import key_slot

from services.common import redis_client, scripts, store
from services.psp_connector.queue import Queue
from tests import support
from tests.support import ROOT, program, redis_answers, wait_until

NODE_TIMEOUT_MS = 1000
PASSWORD = "p@ss/word"
CADDYFILE = """
{{
	admin off
	skip_install_trust
	auto_https disable_redirects
}}
https://127.0.0.1:{port} {{
	tls internal
}}
"""


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1, and the private authority that vouches for it."""

    path: Path
    key: Path
    root: Path

    def redis_options(self, port: int) -> list[str]:
        """A Redis with these options takes TLS and PASSWORD only."""
        options = f"""
        --port 0 --tls-port {port} --tls-auth-clients no --tls-cert-file {self.path}
        --tls-key-file {self.key} --tls-ca-cert-file {self.root} --requirepass {PASSWORD}
        """
        return options.split()

    def redis_url(self, port: int) -> str:
        return f"rediss://:{quote_plus(PASSWORD)}@127.0.0.1:{port}?ssl_ca_certs={self.root}"


class RedisCluster:
    """The nodes are numbered from 0; the primaries at the beginning come first.

    With a certificate it takes TLS and PASSWORD only, also between its nodes.
    """

    def __init__(
        self,
        folder: Path,
        primaries: int,
        replicas: int,
        certificate: Certificate | None,
        exit_stack: contextlib.ExitStack,
    ) -> None:
        self._folder = folder
        self._certificate = certificate
        self.auth = PASSWORD if certificate else None
        self._programs: dict[int, subprocess.Popen[bytes]] = {}
        self._exit_stack = exit_stack
        self.primaries = primaries
        self.replicas = replicas
        count = primaries * (1 + replicas)
        self.first_port = support.free_ports(2 * count)
        self.nodes = range(count)

    @property
    def url(self) -> str:
        return ",".join(map(self.url_of, self.nodes))

    def url_of(self, number: int) -> str:
        port, made = self.first_port + number, self._certificate
        return made.redis_url(port) if made else f"redis://127.0.0.1:{port}"

    def client(self, number: int) -> Any:
        return redis.Redis.from_url(
            self.url_of(number), decode_responses=True, socket_timeout=2, retry=support.ONE_TRY
        )

    def start(self, number: int) -> None:
        folder = self._folder / str(number)
        folder.mkdir(exist_ok=True)
        port, bus = self.first_port + number, self.first_port + len(self.nodes) + number
        config = folder / "redis.conf"
        names = (f"{ROOT}/services/redis/{name}.conf" for name in ("redis", "cluster"))
        config.write_text("".join(f'include "{name}"\n' for name in names))
        command = ["redis-server", str(config), "--dir", str(folder), "--hz", "100"]
        command += ["--cluster-port", str(bus), "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
        if self._certificate:
            command += self._certificate.redis_options(port)
            command += ["--tls-cluster", "yes", "--tls-replication", "yes"]
            command += ["--masterauth", PASSWORD]
        else:
            command += ["--port", str(port)]
        started = program(command, environ=os.environ, output=folder / "log", stop_seconds_max=0)
        self._programs[number] = self._exit_stack.enter_context(started)

    def kill(self, number: int) -> None:
        """`kill -9`."""
        self._programs[number].kill()
        self._programs[number].wait(10)

    def current_primaries(self) -> dict[int, str]:
        """The primaries with slots, by number, and their ids, as a responding node reports them."""
        for number in self.nodes:
            with contextlib.suppress(redis.RedisError), self.client(number) as client:
                return {
                    int(address.rpartition(":")[2].partition("@")[0]) - self.first_port: node[
                        "node_id"
                    ]
                    for address, node in client.cluster("NODES").items()
                    if "master" in node["flags"] and "fail" not in node["flags"] and node["slots"]
                }
        return {}

    def owner(self, partition: store.Partition) -> int:
        """The primary that has a partition."""
        with contextlib.closing(connect(self)) as client:
            return int(scripts.lane(client, partition).rpartition(":")[2]) - self.first_port

    @contextlib.contextmanager
    def moving(self, partition: store.Partition, target: int, part: str = "") -> Iterator[None]:
        """Moves a partition's slot with its keys, as redis-cli does; known to all after the block.

        Within it only the keys whose name contains `part` have moved.
        """
        slot, primaries = key_slot(partition.queue.encode()), self.current_primaries()
        source = self.owner(partition)
        with self.client(target) as new, self.client(source) as old:
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", primaries[source])
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", primaries[target])

            def migrate(part: str) -> None:
                names = old.execute_command("CLUSTER GETKEYSINSLOT", slot, 10_000)
                if names := [name for name in names if part in name]:
                    port = self.first_port + target
                    old.migrate("127.0.0.1", port, names, 0, 5000, auth=self.auth)

            migrate(part)
            yield
            migrate("")
            for one in (new, old):
                one.execute_command("CLUSTER SETSLOT", slot, "NODE", primaries[target])
        wait_until(self.agrees, what="nodes that agree on the slots")

    def agrees(self) -> bool:
        """Whether all nodes name the same primary for each slot."""
        views = set()
        for number in self.nodes:
            with self.client(number) as client:
                nodes = client.cluster("NODES").values()
            views.add(frozenset((node["node_id"], str(node["slots"])) for node in nodes))
        return len(views) == 1

    def is_healthy(self) -> bool:
        """Whether each node responds, all slots are served, and each replica has caught up.

        Each node must know all replicas, too: it learns of them from one another.
        """
        count = self.primaries * self.replicas
        for number in self.nodes:
            try:
                with self.client(number) as client:
                    state = client.cluster("INFO")["cluster_state"]
                    nodes = client.cluster("NODES").values()
                    facts = client.info("replication")
            except redis.RedisError:
                return False
            link = facts.get("master_link_status", "up")
            short = facts["role"] == "master" and facts["connected_slaves"] < self.replicas
            known = sum("slave" in node["flags"] for node in nodes)
            if state != "ok" or link != "up" or short or known < count:
                return False
        return True

    def cli(self, *arguments: str) -> None:
        """Runs `redis-cli --cluster …` against the first node."""
        made = self._certificate
        tls = ["--tls", "--cacert", str(made.root), "-a", PASSWORD] if made else []
        subprocess.run(
            ["redis-cli", *tls, "--cluster", *arguments, "--cluster-yes"],
            check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def certificate(folder: Path) -> Certificate:
    """Made by Caddy's built-in certificate authority."""
    port = support.free_ports(1)
    (folder / "Caddyfile").write_text(CADDYFILE.format(port=port))
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    leaf = folder / "caddy/certificates/local/127.0.0.1/127.0.0.1.crt"
    command, output = ["caddy", "run", "--config", "Caddyfile"], folder / "caddy.log"
    with program(command, environ=environ, output=output, cwd=folder):
        # The key is written before the certificate.
        wait_until(leaf.exists, what="a certificate of Caddy's")
    root = folder / "caddy/pki/authorities/local/root.crt"
    return Certificate(leaf, leaf.with_suffix(".key"), root)


@contextlib.contextmanager
def redis_cluster(
    folder: Path, primaries: int = 3, replicas: int = 1, certificate: Certificate | None = None
) -> Iterator[RedisCluster]:
    """A cluster that is healthy when this returns."""
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as exit_stack:
        cluster = RedisCluster(folder, primaries, replicas, certificate, exit_stack)
        for number in cluster.nodes:
            cluster.start(number)
        for number in cluster.nodes:
            wait_until(partial(redis_answers, cluster.url_of(number)), what="a node")
        addresses = [f"127.0.0.1:{cluster.first_port + n}" for n in cluster.nodes]
        cluster.cli("create", *addresses, "--cluster-replicas", str(replicas))
        wait_until(cluster.is_healthy, what="a healthy cluster")
        yield cluster


def connect(cluster: RedisCluster, timeout_seconds: float = 2) -> Any:
    return redis_client.connect(cluster.url, timeout_seconds=timeout_seconds, cluster=True)


def joins(lane: Queue) -> bool:
    """Whether a connector's lane joins its group now."""
    try:
        lane.join()
    except redis_client.ERRORS:
        return False
    return True
