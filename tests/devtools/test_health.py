"""Commands that wait for a stack, or that need one."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devtools import health
from devtools.supervisor import ProcessState


def test_without_a_reason_in_a_log_doctor_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk all logs are empty."""
    environ = {"PC_SOCKET_PATH": str(tmp_path / "pc.sock"), "PLATFORM_STATE": str(tmp_path)}
    assert health.wait(environ) == 1
    assert "`doctor`" in capsys.readouterr().err


def test_a_crash_of_preflight_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its log has a traceback in place of the faults; a log of its messages alone is no reason."""
    (tmp_path / "logs").mkdir()
    environ = {"PC_SOCKET_PATH": str(tmp_path / "pc.sock"), "PLATFORM_STATE": str(tmp_path)}
    log = "preflight: warning: a hint\n"
    (tmp_path / "logs/preflight.log").write_text(log)
    assert health.wait(environ) == 1
    assert "process-compose has ended" in capsys.readouterr().err
    (tmp_path / "logs/preflight.log").write_text(f"{log}Traceback: …\nNameError: nil\n")
    assert health.wait(environ) == 1
    assert capsys.readouterr().err == (
        "platform: preflight has failed; the end of its log:\n"
        "    preflight: warning: a hint\n    Traceback: …\n    NameError: nil\n"
    )


def test_all_faults_of_preflight_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also more than the lines that are shown of other logs, as for the ports of a cluster."""
    faults = "".join(f"  port {port} is held by redis-server\n" for port in range(8000, 8018))
    (tmp_path / "logs").mkdir()
    log = f"preflight: warning: a hint\npreflight: the stack cannot start\n{faults}"
    (tmp_path / "logs/preflight.log").write_text(log)
    environ = {"PC_SOCKET_PATH": str(tmp_path / "pc.sock"), "PLATFORM_STATE": str(tmp_path)}
    assert health.wait(environ) == 1
    assert capsys.readouterr().err == f"platform: the stack cannot start\n{faults}"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("Pending", "waits for others"),
        ("Skipped", "was stopped before its start, or what it waits for was"),
        ("Terminating", "was stopped before its start, or what it waits for was"),
    ],
)
def test_why_a_process_does_not_start_is_known(status: str, reason: str) -> None:
    """`up -D` prints it when it gives up."""
    state = ProcessState("core-api", status, 0, False, False, 0, 0, None, None)
    assert health.faults([state, replace(state, name="smoke", status="Disabled")]) == {
        "core-api": reason
    }


@pytest.mark.parametrize(("exit_code", "code"), [(1, 1), (0, 1), (-1, 0)])
def test_a_process_that_crashes_ends_the_wait(tmp_path: Path, exit_code: int, code: int) -> None:
    """Not one that was restarted by hand before it was ready, which ends it by a signal."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/ready.log").touch()
    again = ProcessState("core-api", "Restarting", 0, False, False, 3, exit_code, None, None)
    done = ProcessState("ready", "Completed", 0, False, False, 0, 0, None, None)
    looks = iter([[again], [done]])
    supervisor: Any = SimpleNamespace(processes=lambda: next(looks))
    assert health._wait(supervisor, tmp_path) == code  # noqa: SLF001


def test_a_stack_whose_ready_was_skipped_is_up() -> None:
    """As by a restart before its ready line; before that, `up -D` waits for `ready`."""

    def up(ready: str, *, is_ready: bool = True) -> list[str]:
        states = [
            ProcessState(name, status, 1, status == "Running", is_ready, 0, 0, None, None)
            for name, status in (("core-api", "Running"), ("ready", ready), ("smoke", "Disabled"))
        ]
        return health._chosen_up(states)  # noqa: SLF001

    assert up("Skipped") == ["core-api"]
    assert up("Skipped", is_ready=False) == up("Pending") == up("Running") == []
