"""`python -m devtools.cluster`: joins the stack's nodes to a Redis Cluster, at the first start."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from devtools.address import NODES, node_ports
from services.common.command import run_main

_SECONDS_MAX = 30.0


def main(environ: Mapping[str, str]) -> int:
    """Joins the nodes if needed, and waits until each primary has its replica."""
    password = (Path(environ["PLATFORM_STATE"]) / "redis-password").read_text("ascii").strip()
    ports = node_ports(int(environ["PLATFORM_PORT"]))
    nodes: list[Any] = [
        redis.Redis(port=port, password=password, decode_responses=True) for port in ports
    ]
    if int(nodes[0].cluster("INFO")["cluster_known_nodes"]) < NODES:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1"]
        subprocess.run(  # noqa: S603  all of it is ours
            [*create, "--cluster-yes"],
            env={**environ, "REDISCLI_AUTH": password},
            check=True,
            timeout=_SECONDS_MAX,
            stdout=subprocess.DEVNULL,
        )
    deadline = time.monotonic() + _SECONDS_MAX
    while not all(map(_is_complete, nodes)):
        if time.monotonic() > deadline:
            sys.stderr.write(f"redis-cluster: not complete after {_SECONDS_MAX:.0f} s\n")
            return 1
        time.sleep(0.1)
    sys.stdout.write(f"redis-cluster: {NODES} nodes\n")
    return 0


def _is_complete(node: Any) -> bool:
    """Whether all slots are served, and a replica has caught up."""
    facts = node.info("replication")
    replica = facts.get("slave0", {}) if facts["role"] == "master" else {"state": "online"}
    is_up = facts.get("master_link_status", "up") == "up"
    return bool(
        node.cluster("INFO")["cluster_state"] == "ok" and replica.get("state") == "online" and is_up
    )


if __name__ == "__main__":
    raise SystemExit(run_main(lambda: main(os.environ)))
