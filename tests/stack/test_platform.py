"""The `platform` command at work: up -D, down, reset, and what they say."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devtools import orphans
from devtools.address import BLOCK, PORT_OFFSETS, noted_port
from devtools.catalog import CONSOLE
from devtools.ports import is_free
from devtools.ready import is_healthy
from tests import support
from tests.stack.stack import environment, left_of, merchant, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from tests.stack.stack import Stack


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """A state folder and ports of its own; nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        values = environment(Path(folder), support.free_ports(BLOCK))
        try:
            yield values
        finally:
            platform(values, "down")
            left = left_of(Path(folder))
            for process in left:
                process.kill()
            assert left == []


def supervisor(state: Path) -> psutil.Process:
    """The process-compose of this state folder."""
    [found] = {
        parent
        for process in left_of(state)
        if process.environ().get("PC_PROC_NAME") == "router"
        for parent in [process.parent()]
        if parent
    }
    return found


def test_up_comes_back_when_all_is_healthy_and_down_ends_all(environ: dict[str, str]) -> None:
    """One screen with addresses, seconds, what to type; a second is refused; `down` is final."""
    state = Path(environ["PLATFORM_STATE"])
    done = platform(environ, "up", "-D")
    assert done.returncode == 0, done.stderr
    for name, offset in PORT_OFFSETS.items():
        [line] = [line for line in done.stdout.splitlines() if line.split()[:1] == [name]]
        assert line.endswith(f"://127.0.0.1:{int(environ['PLATFORM_PORT']) + offset}")
        assert "? s" not in line
    assert "merchant pay 1250 USD --as alice" in done.stdout
    assert merchant(environ, "pay", "1250", "USD", "--as", "alice").returncode == 0
    again = platform(environ, "up", "-D")
    assert (again.returncode, "already running" in again.stderr) == (1, True)
    assert platform(environ, "down").returncode == 0
    assert left_of(state) == []
    idle = platform(environ, "down")
    assert (idle.returncode, idle.stderr) == (0, "")
    assert "no stack of this checkout is running" in idle.stdout
    idle = platform(environ, "process", "restart", "core-api")
    sentence = "no stack of this checkout is running: `platform up -D` starts one\n"
    assert (idle.returncode, idle.stdout, idle.stderr) == (1, "", sentence)


def test_the_console_starts_beside_the_stack_or_not_at_all(environ: dict[str, str]) -> None:
    """Its address is printed; `--no-console` leaves it out, and its port free."""
    port = CONSOLE.port(int(environ["PLATFORM_PORT"]))
    address = f"Console: http://127.0.0.1:{port}\n"
    given = {**environ, "CONSOLE": "on"}
    assert address in platform(given, "up", "-D").stdout
    support.wait_until(lambda: is_healthy(port), what="the console")
    assert platform(given, "down").returncode == 0
    assert address not in platform(given, "up", "-D", "--no-console").stdout
    assert is_free(port)


def test_status_shows_each_process(stack: Stack, tmp_path: Path) -> None:
    """One line each, with port and health; without a stack it says how to start one."""
    listed = stack.platform("status").stdout.splitlines()
    lines = {line.split()[0]: line.split()[1:] for line in listed}
    assert lines["core-api"] == ["Running", str(stack.port + PORT_OFFSETS["core-api"]), "pass"]
    assert set(lines) == {state.name for state in stack.states()}
    nowhere = platform({**stack.environ, "PLATFORM_STATE": str(tmp_path)}, "status")
    assert nowhere.returncode == 1
    assert "`platform up -D` starts one" in nowhere.stdout


@pytest.mark.parametrize("count", ["51", "99999999999", "+0051"])
def test_scale_is_bounded(stack: Stack, count: str) -> None:
    """Each replica is a process: too many of them would take the whole machine."""
    done = stack.platform("process", "scale", "psp-connector", count)
    sentence = f"scale starts at most 50 replicas of a process, not {count}\n"
    assert (done.returncode, done.stderr) == (2, sentence)


def test_down_ends_what_a_killed_supervisor_left(environ: dict[str, str]) -> None:
    """`kill -9` of process-compose, then `down`: each process is named, and gone."""
    state = Path(environ["PLATFORM_STATE"])
    assert platform(environ, "up", "-D").returncode == 0
    boss = supervisor(state)
    boss.kill()
    support.wait_until(lambda: orphans.is_gone(boss), what="the supervisor's end")
    left = left_of(state)
    assert len(left) >= len(PORT_OFFSETS)
    done = platform(environ, "down")
    assert (done.returncode, done.stderr) == (0, "")
    for name in PORT_OFFSETS:
        assert f"{name}, pid " in done.stdout
    assert [process for process in left if not orphans.is_gone(process)] == []


def test_up_says_what_keeps_it_from_starting(environ: dict[str, str]) -> None:
    """What preflight finds stands on the terminal, and the exit code is not 0."""
    done = platform(environ | {"QUEUE_LIMIT": "many"}, "up", "-D")
    assert done.returncode == 1
    assert "platform: the stack cannot start\n  QUEUE_LIMIT='many': must be" in done.stderr
    assert "Traceback" not in done.stderr


def test_up_names_the_process_that_ends_at_once(environ: dict[str, str], tmp_path: Path) -> None:
    """After a process has ended three times, `up` fails and shows the end of its log."""
    broken = tmp_path / "caddy"
    broken.write_text("#!/bin/sh\necho out of order\nexit 3\n")
    broken.chmod(0o755)
    done = platform(environ | {"PATH": f"{tmp_path}:{environ['PATH']}"}, "up", "-D")
    assert done.returncode == 1
    assert "platform: router has ended 3 times; the end of its log:\n    out of" in done.stderr
    assert "`platform down` stops it" in done.stderr


def test_reset_forgets_only_when_told_so(environ: dict[str, str]) -> None:
    """Without a terminal it wants `--yes`; then the stack is stopped and its state is gone."""
    state = Path(environ["PLATFORM_STATE"])
    assert platform(environ, "up", "-D").returncode == 0
    assert merchant(environ, "pay", "1250", "USD", "--as", "alice").returncode == 0
    (state / "nixw").mkdir()
    refused = platform(environ, "reset")
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    assert merchant(environ, "loyalty", "--as", "alice").returncode == 0
    done = platform(environ, "reset", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert left_of(state) == []
    assert noted_port(state) is None
    assert (state / "nixw").is_dir()
    assert not (state / "jwt-secret").exists()
    assert not (state / "redis").exists()


def test_a_long_path_with_spaces_and_no_home(environ: dict[str, str]) -> None:
    """Over the 100 characters of a Unix socket, with what means something in YAML and sh."""
    folder = Path(environ["PLATFORM_STATE"]) / ("it's a #1 folder: " + "long " * 20) / "state"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder.parent, ignore_errors=True)
        moved = environ | {"PLATFORM_STATE": str(folder)}
        moved.pop("HOME", None)
        stack.callback(platform, moved, "down")
        done = platform(moved, "up", "-D")
        assert done.returncode == 0, done.stdout + done.stderr
        assert merchant(moved, "pay", "1250", "USD", "--as", "alice").returncode == 0
        assert "listening" in (folder / "logs" / "core-api.log").read_text()
        assert platform(moved, "down").returncode == 0


def test_a_folder_that_cannot_be_written_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    """Before anything is started, with the cure."""
    (tmp_path / "file").touch()  # below it not even root can make a folder
    done = platform(environ | {"PLATFORM_STATE": str(tmp_path / "file/state")}, "up", "-D")
    assert done.returncode == 1
    assert "cannot be written: give write permission, or set PLATFORM_STATE" in done.stderr
