"""However and whenever the stack is stopped, no process remains."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from devtools.supervisor import SupervisorError
from tests import support
from tests.stack.stack import STOP_SECONDS_MAX, Stack, left_of, running

# A router that logs its ready line and never responds.
DEAF_ROUTER = "#!/bin/sh\necho serving initial configuration\nexec sleep 600\n"


def begun(name: str, stack: Stack) -> None:
    """Waits until a process of that name has started."""

    def is_begun() -> bool:
        with contextlib.suppress(SupervisorError):
            return any(state.name == name and state.pid for state in stack.states())
        return False

    support.wait_until(is_begun, what=f"the start of {name}")


def signalled(number: signal.Signals, times: int, stack: Stack) -> None:
    for _ in range(times):
        stack.supervisor.send_signal(number)
        time.sleep(0.02)


def down(stack: Stack) -> None:
    assert stack.compose("down").returncode == 0


MOMENTS: dict[str, Callable[[Stack], None]] = {
    "checks run": partial(begun, "preflight"),
    "services start": partial(begun, "core-api"),
    "never healthy": partial(begun, "ready"),
    "healthy": lambda stack: stack.wait_healthy(),
}
WAYS: dict[str, Callable[[Stack], None]] = {
    "SIGINT": partial(signalled, signal.SIGINT, 1),
    "SIGTERM": partial(signalled, signal.SIGTERM, 1),
    "SIGTERM twice": partial(signalled, signal.SIGTERM, 2),
    "down": down,
}


@pytest.mark.parametrize(
    ("moment", "way"),
    [
        # Each way when all runs, and each moment of a start in one way.
        *(("healthy", way) for way in WAYS),
        ("checks run", "SIGTERM"),
        ("services start", "SIGTERM twice"),
        ("never healthy", "SIGINT"),
        ("never healthy", "down"),
    ],
)
def test_stopping_leaves_nothing(tmp_path: Path, moment: str, way: str) -> None:
    """A second after process-compose has ended, no process remains; Redis stops last."""
    if moment == "never healthy":
        (tmp_path / "caddy").write_text(DEAF_ROUTER)
        (tmp_path / "caddy").chmod(0o755)
    with running(healthy=False, PATH=f"{tmp_path}:{os.environ['PATH']}") as stack:
        MOMENTS[moment](stack)
        WAYS[way](stack)
        code = stack.supervisor.wait(STOP_SECONDS_MAX)
        assert left_of(stack.state) == []
        if moment == "healthy":
            assert code == 0
            assert "bye bye" in stack.log("redis")
            assert "unfinished=0" in stack.log("psp-connector")
