"""The state folder: which version made it, and how it is forgotten."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from devtools import state
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def reset(folder: Path, *words: str, **how: int) -> subprocess.CompletedProcess[str]:
    """Runs `python -m devtools.reset`; without a terminal unless one is given."""
    return subprocess.run(
        [sys.executable, "-m", "devtools.reset", *words],
        cwd=ROOT,
        env=os.environ | {"PLATFORM_STATE": str(folder)},
        stdin=how.get("terminal", subprocess.DEVNULL),
        stdout=how.get("terminal", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_is_marked(tmp_path: Path) -> None:
    """A later version will know what made it."""
    assert state.prepare(tmp_path / "new") == []
    assert state.version_of(tmp_path / "new") == "1"


def test_a_folder_of_before_the_mark_is_taken_over(tmp_path: Path) -> None:
    """Its secret and its data stay as they are."""
    (tmp_path / "jwt-secret").write_text("s" * 64)
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "dump").write_text("data")
    assert state.version_of(tmp_path) == ""
    assert state.prepare(tmp_path) == []
    assert state.version_of(tmp_path) == "1"
    assert (tmp_path / "jwt-secret").read_text() == "s" * 64
    assert (tmp_path / "redis" / "dump").read_text() == "data"


@pytest.mark.parametrize("version", ["2", "99", "two", "0"])
def test_a_folder_of_another_version_is_left_alone(tmp_path: Path, version: str) -> None:
    """Nothing is made or changed in it; what to do is said."""
    (tmp_path / "version").write_text(version)
    [told] = state.prepare(tmp_path)
    assert f"({version!r}; this one is 1)" in told
    assert "platform reset" in told
    assert names(tmp_path) == ["version"]


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    """A `redis` that was there before must not be lost with `platform reset`."""
    (tmp_path / "redis").mkdir()
    [told] = state.prepare(tmp_path)
    assert "not the platform's: name a new folder" in told
    assert names(tmp_path) == ["redis"]


def test_reset_forgets_what_the_platform_made_and_nothing_else(tmp_path: Path) -> None:
    """What nixw remembers, and files of the user's, stay; a new start is a first start."""
    state.prepare(tmp_path)
    state.write_environment(tmp_path, "export PLATFORM_PORT=9000", 9005)
    first = (tmp_path / "jwt-secret").read_text()
    for name in ("psp-sandbox.sqlite-wal", "logs/core-api.log", "logs/x.log.1", "pc.sock.lock"):
        (tmp_path / name).write_text("made")
    (tmp_path / "redis" / "deep").mkdir()
    for name in ("nixw", "process-compose"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs" / "notes.txt").write_text("mine")
    done = reset(tmp_path, "forget")
    assert (done.returncode, done.stderr) == (0, "")
    assert names(tmp_path) == ["logs", "nixw", "process-compose"]
    assert names(tmp_path / "logs") == ["notes.txt"]
    assert state.prepare(tmp_path) == []
    assert first != (tmp_path / "jwt-secret").read_text()


@pytest.mark.parametrize("name", ["logs", "redis", "caddy"])
def test_reset_follows_no_symbolic_link(tmp_path: Path, name: str) -> None:
    """The link goes, what it points to stays; a state folder that is itself a link is forgotten."""
    (tmp_path / "real").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "app.log").touch()
    folder = tmp_path / "state"
    folder.symlink_to("real")
    state.prepare(folder)
    (folder / name).rmdir()
    (folder / name).symlink_to(tmp_path / "mine")
    done = reset(folder, "forget")
    assert (done.returncode, done.stderr) == (0, "")
    assert names(tmp_path / "mine") == ["app.log"]
    assert set(names(folder)) <= {"logs"}


def test_reset_refuses_a_folder_that_no_stack_has_used(tmp_path: Path) -> None:
    """A PLATFORM_STATE that points elsewhere by mistake costs nothing."""
    (tmp_path / "logs").mkdir()
    for version in ("", "3.2"):
        if version:
            (tmp_path / "version").write_text(version)
        done = reset(tmp_path, "ask", "--yes")
        assert done.returncode == 1
        assert "nothing to reset" in done.stderr


def test_reset_asks_at_a_terminal_and_refuses_without(tmp_path: Path) -> None:
    """Only a yes is a yes; where nobody can be asked, `--yes` has to be said."""
    state.prepare(tmp_path)
    without = reset(tmp_path, "ask")
    assert without.returncode == 1
    assert "reset --yes" in without.stderr
    assert reset(tmp_path, "ask", "--yes").returncode == 0
    assert reset(tmp_path, "ask", "--now").returncode == 2
    for typed, code in ((b"y\n", 0), (b"\n", 1), (b"no\n", 1)):
        keyboard, terminal = pty.openpty()
        os.write(keyboard, typed)
        assert code == reset(tmp_path, "ask", terminal=terminal).returncode
        assert "go on? [y/N]" in os.read(keyboard, 4096).decode()
        os.close(keyboard)
        os.close(terminal)
