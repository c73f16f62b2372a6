"""However and whenever the stack is stopped, no process remains."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import IO

import pytest

from devtools.address import BLOCK
from tests import support
from tests.stack.stack import STOP_SECONDS_MAX, Stack, environment, left_of, running

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
            support.wait_until(lambda: stack.has_begun(begun), what=f"the start of {begun}")
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


def test_a_stack_outlives_the_reader_of_its_output() -> None:
    """It stops in order all the same, as after a Ctrl-C that also ends the `tee` of `up | tee`."""
    port, (reader, writer) = support.free_ports(BLOCK), os.pipe()
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        state = Path(folder)
        environ = environment(state, port)
        up = subprocess.Popen(
            ["process-compose", "up"], cwd=support.ROOT, env=environ, stdout=writer, stderr=writer
        )
        os.close(writer)
        try:
            stack = Stack(environ, state, port, up)
            stack.wait_healthy()
            os.close(reader)
            assert stack.compose("process", "restart", "auth-api").returncode == 0
            up.send_signal(SIGINT)
            assert up.wait(STOP_SECONDS_MAX) == 0
            assert left_of(state) == []
        finally:
            for process in left_of(state):
                process.kill()
            up.wait(STOP_SECONDS_MAX)


@contextlib.contextmanager
def restarting(stack: Stack) -> Iterator[IO[bytes]]:
    """A restart of the connector while it is being stopped; its errors."""
    stack.process("psp-connector").suspend()  # its stop takes 6 s
    command = ["process-compose", "process", "restart", "psp-connector"]
    with subprocess.Popen(command, env=stack.environ, stderr=subprocess.PIPE) as restart:
        support.wait_until(lambda: is_stopping(stack), what="the connector's stop")
        assert restart.stderr
        yield restart.stderr


def test_a_restart_starts_nothing_in_a_stack_that_ends() -> None:
    """process-compose would leave behind what it starts after a Ctrl-C."""
    with running() as stack:
        with restarting(stack) as errors:
            stack.supervisor.send_signal(SIGINT)
            assert stack.supervisor.wait(STOP_SECONDS_MAX) == 0
            assert errors.read() == b"the stack has ended\n"
        assert left_of(stack.state) == []


@pytest.mark.parametrize(
    "changes",
    [
        ["process scale psp-connector 2"],
        ["process start smoke"],
        ["process restart redis"],
        ["process restart core-api", "process restart auth-api"],
        ["namespace start services"],
    ],
    ids=str,
)
def test_changes_after_a_stop_leave_nothing(changes: list[str]) -> None:
    """Nor what is begun in other terminals after the Ctrl-C."""
    with running() as stack:
        stack.process("psp-connector").suspend()  # its stop takes 6 s
        stack.supervisor.send_signal(SIGINT)
        support.wait_until(lambda: is_stopping(stack), what="the connector's stop")
        with ThreadPoolExecutor() as pool:
            for done in pool.map(lambda change: stack.compose(*change.split()), changes):
                assert (done.returncode, done.stderr) == (1, "the stack has ended\n")
        assert stack.supervisor.wait(STOP_SECONDS_MAX) == 0
        assert left_of(stack.state) == []


def test_a_killed_supervisor_leaves_a_restarted_process() -> None:
    """Its processes work on until `platform down`, which the restart names."""
    with running() as stack:
        with restarting(stack) as errors:
            stack.supervisor.kill()
            assert b"process-compose was killed" in errors.read()
        assert stack.healthy("core-api")
        assert "left behind by a killed supervisor" in stack.platform("down").stdout
        assert left_of(stack.state) == []


def is_stopping(stack: Stack) -> bool:
    states = {state.name: state.status for state in stack.states()}
    return states["psp-connector"] == "Terminating"
