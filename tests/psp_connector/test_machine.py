import contextlib
from collections.abc import Iterator

import pytest
import redis

from services.common import redis_client, store
from services.psp_connector.settings import ConnectorSettings
from tests import support
from tests.psp_connector import machine


@pytest.fixture(scope="module")
def starting_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis Cluster of one node, which serves no keys in its first 2 s."""
    port, folder = support.free_ports(2), tmp_path_factory.mktemp("cluster")
    options = ("--cluster-enabled", "yes", "--cluster-port", str(port + 1))
    with support.redis_server(folder, port, *options), redis.Redis(port=port) as node:
        node.cluster("ADDSLOTSRANGE", 0, 16383)
        yield f"redis://127.0.0.1:{port}"


@pytest.mark.usefixtures("starting_cluster")
def test_no_history_loses_or_repeats_an_effect(settings: ConnectorSettings) -> None:
    """Random histories have accepts, attempts, crashes, take-overs and corrupt data."""
    client = redis_client.connect(settings.redis_url, timeout_seconds=5)
    machine.run(client, settings, store.WHOLE, 30)


def test_each_script_keeps_to_its_partition(
    settings: ConnectorSettings, starting_cluster: str
) -> None:
    """Redis Cluster refuses a script whose keys are in several slots."""
    with redis_client.connect(starting_cluster, timeout_seconds=2) as node:
        support.wait_until(lambda: node.cluster("INFO")["cluster_state"] == "ok", what="the slots")
    more = {"redis_cluster": True, "partitions": 2, "redis_url": starting_cluster}
    client = redis_client.connect(starting_cluster, timeout_seconds=2, cluster=True)
    with contextlib.closing(client):
        machine.run(client, settings.model_copy(update=more), store.partitions(2)[1], 6)
