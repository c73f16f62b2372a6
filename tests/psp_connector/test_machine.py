from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)

from tests.psp_connector.machine import Machine

if TYPE_CHECKING:
    from services.psp_connector.settings import ConnectorSettings

EXAMPLES_MAX = 30
STEPS_MAX = 60


def test_whatever_happens_nothing_is_lost_or_done_twice(
    redis_port: int, settings: ConnectorSettings
) -> None:
    """Random histories of accepts, attempts, crashes, take-overs, late comers and nonsense."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    run_state_machine_as_test(
        lambda: Machine(url, settings),  # type: ignore[arg-type]  # it only calls it
        # A failing history is shown as it was: making it shorter takes longer than a test may.
        settings=hypothesis_settings(
            max_examples=EXAMPLES_MAX,
            stateful_step_count=STEPS_MAX,
            deadline=None,
            phases=[Phase.generate],
        ),
    )


# What random histories come by only now and then, told on purpose: (rule, arguments) each.
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
def test_rare_histories(redis_port: int, settings: ConnectorSettings, name: str) -> None:
    """The same model, step by step."""
    machine = Machine(f"redis://127.0.0.1:{redis_port}/0", settings)
    for step, arguments in HISTORIES[name]:
        getattr(machine, step)(*arguments)
        machine.redis_is_as_the_model_says()
        machine.final_is_final()
        machine.points_are_what_was_captured()
        machine.nothing_open_is_out_of_reach()
    machine.teardown()
