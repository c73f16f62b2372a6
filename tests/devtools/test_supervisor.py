"""Restarts of a process by several commands; tests/stack tries the rest with process-compose."""

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from devtools import supervisor
from devtools.supervisor import (
    ProcessState,
    RefusedError,
    Supervisor,
    SupervisorError,
    UnresponsiveError,
)

RUNNING = ProcessState(
    "", "Running", 1, True, True, restarts=0, exit_code=0, started_at=None, ready_at=None
)


class Recorded(Supervisor):
    """Its calls, which take a moment."""

    def __init__(self, socket: Path, calls: list[str], *, has_ended: bool = False) -> None:
        super().__init__(str(socket))
        self._calls = calls
        self._has_ended = has_ended

    def processes(self) -> list[ProcessState]:
        return [replace(RUNNING, name=name) for name in ("core-api", "auth-api")]

    def _stop(self, name: str) -> None:
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


def test_a_stop_waits_for_restarts(tmp_path: Path) -> None:
    """Otherwise the process would be started after it."""
    calls: list[str] = []
    supervisor = Recorded(tmp_path / "pc.sock", calls)
    with ThreadPoolExecutor() as pool:
        restart = pool.submit(supervisor.restart, "core-api")
        while not calls:
            time.sleep(0.01)
        supervisor.stop("core-api")
        restart.result()
    assert calls == ["stop core-api", "start core-api", "stop core-api"]


def test_a_restart_waits_for_other_changes(tmp_path: Path) -> None:
    """Until the process that has locked them has ended, also if it has become another program."""
    calls: list[str] = []
    supervisor = Recorded(tmp_path / "pc.sock", calls)
    code = (
        "import os, sys; from devtools.supervisor import Supervisor;"
        "file = Supervisor(sys.argv[1]).lock_changes(); os.set_inheritable(file.fileno(), True);"
        "print('locked', flush=True);"
        "os.execvp('sleep', ['sleep', '0.5'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "pc.sock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"locked\n"
        supervisor.restart("core-api")
        assert other.poll() == 0
    assert calls == ["stop core-api", "start core-api"]


class Stopping(Recorded):
    """A stack in which something is stopped, and something was before its start."""

    def __init__(self, statuses: Sequence[str], then: SupervisorError) -> None:
        super().__init__(Path("pc.sock"), [])
        self._statuses, self._then = iter(statuses), then

    def processes(self) -> list[ProcessState]:
        for status in self._statuses:
            never = replace(RUNNING, status="Terminating", pid=0)
            return [never, replace(RUNNING, status=status), replace(RUNNING, status="Completed")]
        raise self._then


@pytest.mark.parametrize(
    ("statuses", "has_ended"),
    [
        (["Running", "Running"], False),
        (["Terminating", "Completed", "Completed"], False),
        (["Terminating", "Completed", "Terminating"], True),
        ([], True),
    ],
)
def test_the_end_of_a_stack_is_known(statuses: Sequence[str], *, has_ended: bool) -> None:
    """Not by a job that has ended, or a process stopped by hand."""
    assert Stopping(statuses, SupervisorError()).has_ended() == has_ended


def test_a_suspended_supervisor_has_not_ended() -> None:
    """What was started must not be ended."""
    with pytest.raises(UnresponsiveError):
        Stopping(["Terminating"], UnresponsiveError()).has_ended()


def test_an_unknown_process_is_refused(tmp_path: Path) -> None:
    """As the name of a scaled one without its number; the message has those that there are."""
    calls: list[str] = []
    for name in ("psp-connector", "a/b", ""):
        with pytest.raises(
            RefusedError, match=f"no process {name!r}; there are core-api, auth-api"
        ):
            Recorded(tmp_path / "pc.sock", calls).restart(name)
    assert (calls, [path.name for path in tmp_path.iterdir()]) == ([], ["pc.sock-changes.lock"])


def test_a_process_that_waits_for_others_is_not_restarted(tmp_path: Path) -> None:
    """process-compose would stop it, and then not start it."""
    calls: list[str] = []

    class Starting(Recorded):
        def processes(self) -> list[ProcessState]:
            return [replace(RUNNING, name="reload", status="Pending", pid=0)]

        def needs(self, name: str) -> list[str]:
            return {"reload": ["preflight", "ready"]}[name]

    with pytest.raises(
        RefusedError, match="reload has not started yet; it waits for preflight, ready"
    ):
        Starting(tmp_path / "pc.sock", calls).restart("reload")
    assert calls == []


def test_a_job_that_others_wait_for_is_not_restarted(tmp_path: Path) -> None:
    """process-compose would stop the whole stack."""

    class Joining(Recorded):
        def processes(self) -> list[ProcessState]:
            job = replace(RUNNING, name="redis-cluster", is_ready=False, is_running=False)
            waits = replace(RUNNING, name="core-api", status="Pending")
            return [replace(job, status="Restarting"), waits]

        def needs(self, name: str) -> list[str]:
            return {"core-api": ["redis-cluster"]}[name]

    with pytest.raises(RefusedError, match="redis-cluster is not done yet, and others wait for it"):
        Joining(tmp_path / "pc.sock", []).restart("redis-cluster")


def test_a_change_that_does_not_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a suspended command; `reload` tries again after such a refusal."""
    monkeypatch.setattr(supervisor, "_CHANGE_SECONDS_MAX", 0.05)
    one = Recorded(tmp_path / "pc.sock", [])
    with (
        one.lock_changes(),
        pytest.raises(RefusedError, match=r"what holds pc\.sock-changes\.lock does not end"),
    ):
        one.restart("core-api")


def test_an_unusable_lock_is_an_error_of_the_restart(tmp_path: Path) -> None:
    """It does not end `reload`, and nothing was stopped."""
    (tmp_path / "pc.sock.core-api.lock").mkdir()
    calls: list[str] = []
    with pytest.raises(SupervisorError, match=r"Is a directory: .*core-api\.lock"):
        Recorded(tmp_path / "pc.sock", calls).restart("core-api")
    assert calls == []
