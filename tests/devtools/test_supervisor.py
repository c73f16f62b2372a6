"""Restarts of a process by several commands; tests/stack tries the rest with process-compose."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devtools.supervisor import RefusedError, Supervisor


class Recorded(Supervisor):
    """Its calls, which take a moment."""

    def __init__(self, socket: Path, calls: list[str], *, has_ended: bool = False) -> None:
        super().__init__(str(socket))
        self._calls = calls
        self._has_ended = has_ended

    def stop(self, name: str) -> None:
        self._calls.append(f"stop {name}")
        if self._has_ended:
            raise RefusedError(f"process {name} is not running")
        time.sleep(0.1)

    def start(self, name: str) -> None:
        time.sleep(0.1)
        self._calls.append(f"start {name}")


def test_one_restart_of_a_process_at_a_time(tmp_path: Path) -> None:
    """Of the console, `reload` and `process restart`: otherwise two processes would be left."""
    calls: list[str] = []
    commands = [Recorded(tmp_path / "pc.sock", calls) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda command: command.restart("core-api"), commands))
    assert calls == ["stop core-api", "start core-api"] * 3


def test_processes_restart_at_the_same_time(tmp_path: Path) -> None:
    """A change of a shared module restarts all."""
    calls: list[str] = []
    supervisor = Recorded(tmp_path / "pc.sock", calls)
    with ThreadPoolExecutor() as pool:
        list(pool.map(supervisor.restart, ["core-api", "auth-api"]))
    assert {call.split()[0] for call in calls[:2]} == {"stop"}


def test_a_process_that_has_ended_is_started(tmp_path: Path) -> None:
    """process-compose refuses to stop it."""
    calls: list[str] = []
    Recorded(tmp_path / "pc.sock", calls, has_ended=True).restart("core-api")
    assert calls == ["stop core-api", "start core-api"]
