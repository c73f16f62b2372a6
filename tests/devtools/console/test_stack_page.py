"""The page Stack: status and reason of a process."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devtools.console.pages import stack
from devtools.supervisor import ProcessState

RUNNING = ProcessState("core-api", "Running", 0, True, True, 0, 0, None, None)
PENDING = replace(RUNNING, status="Pending", is_running=False, is_ready=False)
ENDED = replace(RUNNING, status="Completed", is_running=False, is_ready=False)
REDIS = replace(PENDING, name="redis", status="Disabled")


def shown(state: Path, *states: ProcessState) -> dict[str, tuple[str, str]]:
    """Status and reason of each process; all of them need Redis and preflight."""
    supervisor = SimpleNamespace(
        processes=lambda: list(states), needs=lambda _name: ["preflight", "redis"]
    )
    sources: Any = SimpleNamespace(
        supervisor=supervisor,
        first_port=8000,
        settings=SimpleNamespace(platform_state=state),
    )
    return {one["name"]: (one["status"], one["why"]) for one in stack.read(sources)}


@pytest.mark.parametrize(
    ("core_api", "status", "why"),
    [
        (RUNNING, "ready", ""),
        (replace(RUNNING, is_ready=False), "starting", "runs, but is not ready: its last line"),
        (PENDING, "waiting", "waits for redis (disabled)"),
        (ENDED, "stopped", ""),
        (replace(ENDED, exit_code=78), "completed", "ended with code 78: its last line"),
    ],
)
def test_the_reason_why_a_process_is_not_up_is_shown(
    tmp_path: Path, core_api: ProcessState, status: str, why: str
) -> None:
    """The reason is the processes it waits for, or its exit code and the end of its log."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/core-api.log").write_text("its first line\nits last line\n")
    preflight = replace(ENDED, name="preflight")
    found = shown(tmp_path, core_api, REDIS, preflight)
    assert found["core-api"] == (status, why)
    assert found["preflight"] == ("done", "")
    assert list(found) == ["core-api", "redis", "preflight"]
