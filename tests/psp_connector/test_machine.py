import contextlib
from pathlib import Path
from typing import Any

from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from services.common import redis_client, store
from services.psp_connector.settings import ConnectorSettings
from tests.cluster import connect, redis_cluster
from tests.psp_connector.machine import Machine

STEPS_MAX = 60


def run(
    client: Any, settings: ConnectorSettings, partition: store.Partition, examples_max: int
) -> None:
    run_state_machine_as_test(
        lambda: Machine(client, settings, partition),  # type: ignore[arg-type]  # it only calls it
        # A failing history is not shrunk, which would take longer than a test may.
        settings=hypothesis_settings(
            max_examples=examples_max,
            stateful_step_count=STEPS_MAX,
            deadline=None,
            phases=[Phase.generate],
        ),
    )


def test_no_history_loses_or_repeats_an_effect(settings: ConnectorSettings) -> None:
    """Random histories have accepts, attempts, crashes, take-overs and corrupt data."""
    client = redis_client.connect(settings.redis_url, timeout_seconds=5)
    run(client, settings, store.WHOLE, 30)


def test_each_script_keeps_to_its_partition(tmp_path: Path, settings: ConnectorSettings) -> None:
    """Redis Cluster refuses a script whose keys are in several slots."""
    with (
        redis_cluster(tmp_path, masters=3, replicas=0) as cluster,
        contextlib.closing(connect(cluster)) as client,
    ):
        more = {"redis_cluster": True, "partitions": 2, "redis_url": cluster.url}
        run(client, settings.model_copy(update=more), store.partitions(2)[1], 6)
