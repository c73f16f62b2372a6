"""`python -m devtools.cluster`: joins the stack's nodes to a Redis Cluster, at the first start."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from devtools.address import NODES, node_ports
from services.common.command import run_main

_SECONDS_MAX = 30.0
_CREATE_SECONDS_MAX = 20.0
_RESPONSE_SECONDS_MAX = 5.0
_FAULT = """\
redis-cluster: the stack cannot start
  the Redis Cluster is not complete after {seconds:.0f} s: {reason}
  see redis*.log in {logs}; `platform reset` deletes all data and makes a new cluster
"""


def main(environ: Mapping[str, str]) -> int:
    """Joins the nodes if all are empty, and waits until each primary has its replica.

    After an interrupted join they are empty: the services start only after a complete one.
    """
    state = Path(environ["PLATFORM_STATE"])
    password = (state / "redis-password").read_text("ascii").strip()
    ports = node_ports(int(environ["PLATFORM_PORT"]))
    more: Any = {"socket_timeout": _RESPONSE_SECONDS_MAX, "decode_responses": True}
    nodes: list[Any] = [redis.Redis(port=port, password=password, **more) for port in ports]
    is_joined, reason = False, ""
    deadline = time.monotonic() + _SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            # Asks all nodes, because a reset deletes the data of a replica.
            if not is_joined and not sum(node.dbsize() for node in nodes):
                _create(nodes, ports, {**environ, "REDISCLI_AUTH": password})
            is_joined = True
            if all(map(is_complete, nodes)):
                sys.stdout.write(f"redis-cluster: {NODES} nodes\n")
                return 0
            reason = "slots or replicas are missing"
        except (redis.RedisError, subprocess.SubprocessError) as error:
            reason = str(error)
        time.sleep(0.1)
    sys.stderr.write(_FAULT.format(seconds=_SECONDS_MAX, reason=reason, logs=state / "logs"))
    return 1


def _create(nodes: Sequence[Any], ports: Sequence[int], environ: Mapping[str, str]) -> None:
    for node in nodes:
        node.cluster("RESET", "HARD")  # `create` refuses what an interrupted join has left
    addresses = [f"127.0.0.1:{port}" for port in ports]
    create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1"]
    subprocess.run(  # noqa: S603  all of it is ours
        [*create, "--cluster-yes"],
        env=environ,
        check=True,
        timeout=_CREATE_SECONDS_MAX,
        stdout=subprocess.DEVNULL,
    )


def is_complete(node: Any) -> bool:
    """Whether all slots are served, a replica has caught up, and the node knows all replicas.

    A service refuses a cluster in which the node that it asks knows none.
    """
    facts = node.info("replication")
    replica = facts.get("slave0", {}) if facts["role"] == "master" else {"state": "online"}
    is_up = facts.get("master_link_status", "up") == "up" and replica.get("state") == "online"
    known = sum("slave" in other["flags"] for other in node.cluster("NODES").values())
    return is_up and known >= NODES // 2 and node.cluster("INFO")["cluster_state"] == "ok"


if __name__ == "__main__":
    raise SystemExit(run_main(lambda: main(os.environ)))
