from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)

from services.common import redis_client, store
from services.psp_connector.settings import ConnectorSettings
from tests.cluster import connect, redis_cluster
from tests.psp_connector.machine import Machine

EXAMPLES_MAX = 30
STEPS_MAX = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a cluster with three primaries and no replicas."""
    with redis_cluster(tmp_path_factory.mktemp("cluster"), masters=3, replicas=0) as cluster:
        client = connect(cluster)
        yield client
        client.close()


@pytest.fixture
def single(redis_port: int) -> Any:
    return redis_client.connect(f"redis://127.0.0.1:{redis_port}/0", timeout_seconds=5)


@pytest.mark.parametrize(
    ("where", "partition", "more"),
    [
        ("single", store.WHOLE, {}),
        ("cluster", store.partitions(2)[1], {"redis_cluster": True, "partitions": 2}),
    ],
    ids=["single", "cluster"],
)
def test_no_history_loses_or_repeats_an_effect(
    request: pytest.FixtureRequest,
    settings: ConnectorSettings,
    where: str,
    partition: store.Partition,
    more: dict[str, Any],
) -> None:
    """Random histories have accepts, attempts, crashes, take-overs and corrupt data."""
    client = request.getfixturevalue(where)
    if more:
        more |= {"redis_url": ",".join(client.urls)}
    settings = settings.model_copy(update=more)
    run_state_machine_as_test(
        lambda: Machine(client, settings, partition),  # type: ignore[arg-type]  # it only calls it
        # A failing history is not shrunk, which would take longer than a test may.
        settings=hypothesis_settings(
            max_examples=EXAMPLES_MAX,
            stateful_step_count=STEPS_MAX,
            deadline=None,
            phases=[Phase.generate],
        ),
    )


# Histories that random ones rarely contain: (rule, arguments) each.
HISTORIES: dict[str, tuple[tuple[str, tuple[Any, ...]], ...]] = {
    "a late failure while the successor is being told captured": (
        ("accept", (1, (1250, "USD"), None)),
        ("lapse", (0, 1, "refuse")),
        ("charge", (0, "capture")),
        ("save", (0, 0)),
    ),
    "a late last attempt without an answer": (
        ("accept", (1, (1250, "USD"), None)),
        *[("work", (0, 1, "fail", 0)), ("promote", (0, 1))] * 2,
        ("lapse", (0, 1, "lose the answer")),
        ("charge", (0, "capture")),
        ("save", (0, 0)),
    ),
    "a late capture while the next attempt is scheduled": (
        ("accept", (1, (1250, "USD"), None)),
        ("lapse", (0, 1, None)),
        ("charge", (1, "fail")),
        ("save", (0, 30)),
        ("charge", (0, "capture")),
        ("save", (0, 0)),
    ),
    "a retry when the clock was set back": (
        ("accept", (1, (1250, "USD"), None)),
        ("work", (0, 1, "fail", 30)),
        ("time_passes", (-7200,)),
        ("promote", (0, 1)),
    ),
    "a late capture while the next attempt is queued": (
        ("accept", (1, (1250, "USD"), None)),
        ("lapse", (0, 1, None)),
        ("charge", (1, "fail")),
        ("save", (0, 0)),
        ("promote", (1, 1)),
        ("charge", (0, "capture")),
        ("save", (0, 0)),
    ),
    "a retry after the other entry's capture": (
        ("accept", (1, (1250, "USD"), None)),
        ("write_a_duplicate", (0,)),
        ("take", (0, 2)),
        ("charge", (0, "capture")),
        ("charge", (1, "fail")),
        ("save", (0, 0)),
        ("save", (0, 30)),
    ),
    "a replay while its old connector comes late": (
        ("accept", (1, (1250, "USD"), None)),
        ("lapse", (0, 1, None)),
        ("charge", (1, "refuse")),
        ("save", (0, 0)),
        ("replay", (0,)),
        ("charge", (0, "refuse")),
        ("save", (0, 0)),
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_rare_histories(single: Any, settings: ConnectorSettings, name: str) -> None:
    """The same model, step by step."""
    machine = Machine(single, settings)
    for step, arguments in HISTORIES[name]:
        getattr(machine, step)(*arguments)
        machine.redis_is_as_the_model_says()
        machine.redis_and_the_psp_agree()
        machine.points_are_what_was_captured()
        machine.nothing_open_is_out_of_reach()
    machine.teardown()
