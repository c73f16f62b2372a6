"""`platform up --cluster`: the stack on a Redis Cluster of six nodes."""

from __future__ import annotations

from pathlib import Path

from devtools.address import PORT_OFFSETS
from devtools.state import node_ports
from tests.stack.stack import merchant, platform, processes_of
from tests.support import wait_until


def test_a_cluster_takes_payments_and_outlives_a_primary(environ: dict[str, str]) -> None:
    """Also a restart: it finds its nodes, and no other number of partitions is accepted."""
    done = platform(environ, "up", "-D", "--cluster")
    assert done.returncode == 0, done.stdout + done.stderr
    assert merchant(environ, "pay", "1250", "USD", "--as", "alice").returncode == 0
    state = Path(environ["PLATFORM_STATE"])
    port = node_ports(int(environ["PLATFORM_PORT"]) + PORT_OFFSETS["redis"])[0]
    [node] = [one for one in processes_of(state) if str(port) in one.cmdline()]
    node.kill()
    for name in ("alice", "becky"):
        wait_until(
            lambda name=name: (  # type: ignore[misc]
                merchant(environ, "pay", "1250", "USD", "--as", name).returncode == 0
            ),
            seconds_max=40,
            what="a payment after the failover",
        )
    platform(environ, "down")
    refused = platform({**environ, "PARTITIONS": "4"}, "up", "-D", "--cluster")
    assert "PARTITIONS=4: the data in" in refused.stderr
    done = platform(environ, "up", "-D", "--cluster")
    assert done.returncode == 0, done.stdout + done.stderr
    assert merchant(environ, "list", "--as", "alice").stdout.count("captured") >= 2
