"""`platform up --cluster`: the stack on a Redis Cluster of six nodes."""

import re
import sys
from functools import partial
from pathlib import Path

from devtools.address import NODES
from devtools.catalog import SERVICES
from tests.stack.stack import cut_off_a_transaction, merchant, platform, processes_of
from tests.support import call, wait_until


def test_a_cluster_takes_payments_and_outlives_a_primary(environ: dict[str, str]) -> None:
    """After a restart it finds its nodes, and refuses another number of partitions."""
    done = platform(environ, "up", "-D", "--cluster")
    assert done.returncode == 0, done.stdout + done.stderr
    paid = merchant(environ, "pay", "1250", "USD", "--as", "alice")
    assert paid.returncode == 0
    state = Path(environ["PLATFORM_STATE"])
    # In another shell, doctor and dead letters find the cluster by the record of its start.
    doctor = call([sys.executable, "-m", "devtools.doctor"], environ)
    assert doctor.returncode == 0, doctor.stdout
    assert "with other settings" not in doctor.stdout
    assert doctor.stdout.count("ours: redis-server") == 2 * NODES
    failing = "1250", "USD", "--as", "alice", "--payment-method", "pm_sandbox_error_500"
    assert merchant(environ, "pay", *failing).returncode == 1
    letters = call([sys.executable, "-m", "devtools.deadletters", "list"], environ)
    assert letters.stdout.count("given up after 8 attempts") == 1
    port = SERVICES["redis"].port(int(environ["PLATFORM_PORT"]))
    [node] = [one for one in processes_of(state) if str(port) in one.cmdline()]
    node.kill()
    for name in ("alice", "becky"):
        pay = partial(merchant, environ, "pay", "1250", "USD", "--as", name)
        wait_until(lambda pay=pay: pay().returncode == 0, seconds_max=40, what="a failover")  # type: ignore[misc]
    platform(environ, "down")
    log = (state / "logs/psp-connector.log").read_text()
    assert "could not release lease" not in log, "the nodes stop after the connector"
    for folder in state.glob("redis/node-*"):
        cut_off_a_transaction(folder)
    refused = platform({**environ, "PARTITIONS": "4"}, "up", "-D", "--cluster")
    assert "PARTITIONS=4: the data in" in refused.stderr
    refused = platform({**environ, "PARTITIONS": "16"}, "up", "-D")
    assert "are those of a Redis Cluster" in refused.stderr
    done = platform(environ, "up", "-D", "--cluster")
    assert done.returncode == 0, done.stdout + done.stderr
    [transaction_id] = re.findall(r"transaction (\S+)", paid.stdout)
    assert "\ncaptured " in merchant(environ, "trace", transaction_id, "--as", "alice").stdout
