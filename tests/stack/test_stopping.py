"""However and whenever the stack is stopped, no process remains."""

import contextlib
import os
import time
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import pytest

from devtools.supervisor import SupervisorError
from tests import support
from tests.stack.stack import STOP_SECONDS_MAX, Stack, left_of, running

# A router that logs its ready line and never responds.
UNRESPONSIVE_ROUTER = (
    "[ $1 != adapt ] || exit 0\necho serving initial configuration\nexec sleep 600"
)


@pytest.mark.parametrize(
    ("begun", "signals"),
    [("preflight", [SIGTERM]), ("core-api", [SIGTERM] * 2), ("ready", []), ("", [SIGINT])],
    ids=["checks-SIGTERM", "services-SIGTERM-twice", "never-healthy-down", "healthy-SIGINT"],
)
def test_stopping_leaves_nothing(tmp_path: Path, begun: str, signals: list[Signals]) -> None:
    """A second after process-compose has ended, no process remains; Redis stops last.

    `running` itself ends a healthy stack with SIGTERM, test_environment with `platform down`.
    """
    if begun == "ready":
        support.script(tmp_path / "caddy", UNRESPONSIVE_ROUTER)
    with running(healthy=not begun, PATH=f"{tmp_path}:{os.environ['PATH']}") as stack:
        if begun:
            support.wait_until(lambda: has_begun(stack, begun), what=f"the start of {begun}")
        for number in signals:
            stack.supervisor.send_signal(number)
            time.sleep(0.02)
        if not signals:
            assert stack.compose("down").returncode == 0
        code = stack.supervisor.wait(STOP_SECONDS_MAX)
        assert left_of(stack.state) == []
        if not begun:
            assert code == 0
            assert "bye bye" in stack.log("redis")
            assert "unfinished=0" in stack.log("psp-connector")


def has_begun(stack: Stack, name: str) -> bool:
    with contextlib.suppress(SupervisorError):
        return any(state.name == name and state.pid for state in stack.states())
    return False
