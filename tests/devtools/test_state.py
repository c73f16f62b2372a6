"""The state folder: its version, and its removal by `platform reset`."""

import os
import subprocess
from pathlib import Path

import pytest

from devtools import state
from tests.devtools.conftest import at_terminal
from tests.support import LAUNCH, ROOT, call

RESET = [*LAUNCH, "devtools.stack", "reset"]


def environ_of(folder: Path) -> dict[str, str]:
    return os.environ | {"PLATFORM_STATE": str(folder), "PLATFORM_CODE": str(ROOT)}


def reset(folder: Path) -> tuple[int, str]:
    """The exit code and errors of `platform reset --yes`."""
    done = call([*RESET, "--yes"], environ_of(folder))
    return done.returncode, done.stderr


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("version", ["2", "99", "two", "0"])
def test_a_folder_of_another_version_is_refused(tmp_path: Path, version: str) -> None:
    """The folder is unchanged, and the message has the remedy."""
    (tmp_path / "version").write_text(version)
    [fault] = state.prepare(tmp_path)
    assert f"({version!r}; this one is 1)" in fault
    assert "platform reset" in fault
    assert names(tmp_path) == ["version"]


def test_git_ignores_a_folder_of_any_name(tmp_path: Path) -> None:
    """`git add -A` would bring its secrets into the Nix store, where everybody can read them."""
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    state.prepare(tmp_path / "mine")
    assert subprocess.check_output([*git, "status", "--short"]) == b""
    (tmp_path / "mine" / ".gitignore").write_text("mine")
    state.prepare(tmp_path / "mine")
    assert (tmp_path / "mine" / ".gitignore").read_text() == "mine"


def test_reset_removes_only_files_of_the_platform(tmp_path: Path) -> None:
    """Files of nixw and of the user are kept; the next start is a first start."""
    state.prepare(tmp_path)
    state.write_environment(tmp_path, "export PLATFORM_PORT=9000", [9005])
    first = (tmp_path / "jwt-secret").read_text()
    for name in (
        "psp-sandbox.sqlite-wal",
        "logs/core-api.log",
        "logs/x.log.1",
        "pc.sock.lock",
        "pc.sock.reload.lock",
    ):
        (tmp_path / name).write_text("made")
    (tmp_path / "redis" / "deep").mkdir()
    for name in ("nixw", "process-compose"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs" / "notes.txt").write_text("mine")
    assert reset(tmp_path) == (0, "")
    assert names(tmp_path) == [".gitignore", "logs", "nixw", "process-compose"]
    assert names(tmp_path / "logs") == ["notes.txt"]
    assert state.prepare(tmp_path) == []
    assert (tmp_path / "jwt-secret").read_text() != first


def test_reset_follows_no_symbolic_link(tmp_path: Path) -> None:
    """A link is removed, its target stays; a state folder may itself be a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "app.log").touch()
    folder = tmp_path / "state"
    folder.symlink_to("real")
    state.prepare(folder)
    for name in ("logs", "redis", "caddy"):
        (folder / name).rmdir()
        (folder / name).symlink_to(tmp_path / "mine")
    assert reset(folder) == (0, "")
    assert names(tmp_path / "mine") == ["app.log"]
    assert set(names(folder)) <= {".gitignore", "process-compose"}


@pytest.mark.parametrize("version", ["", "3.2"])
def test_reset_refuses_a_folder_that_no_stack_has_used(tmp_path: Path, version: str) -> None:
    """A wrong PLATFORM_STATE loses no data."""
    (tmp_path / "nixw").mkdir()
    if version:
        (tmp_path / "version").write_text(version)
    code, error = reset(tmp_path)
    assert (code, "nothing to reset" in error) == (1, True)


@pytest.mark.parametrize(("typed", "code"), [("y", 0), ("", 1), ("no", 1)])
def test_reset_asks_at_a_terminal(tmp_path: Path, typed: str, code: int) -> None:
    """Only y or yes agrees."""
    state.prepare(tmp_path)
    result, screen = at_terminal(RESET, environ_of(tmp_path), f"{typed}\n")
    assert (result, (tmp_path / "jwt-secret").exists()) == (code, code == 1)
    assert "continue? [y/N]" in screen


def test_the_nodes_of_a_cluster_know_only_each_other(tmp_path: Path) -> None:
    """A node of another cluster is forgotten; one whose file is missing is not.

    A file that Redis would refuse stays as it is.
    """
    ids = [str(number) * 40 for number in range(3)]

    def lines(ports: list[int], mine: int) -> str:
        flags = ["myself,master" if n == mine else "master" for n in range(len(ports))]
        nodes = zip(ids, ports, flags, strict=False)
        text = "".join(f"{i} :{p}@{p + 2},,tls-port=0 {f} - 0 1 connected\n" for i, p, f in nodes)
        return text.replace(" :", " 127.0.0.1:") + "vars currentEpoch 6\n"

    files = [tmp_path / f"redis/node-{number}/nodes.conf" for number in range(2)]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True)
        file.write_text(lines([7000, 7010, 7020], number))
    state.write_addresses(tmp_path, [8000, 8010, 8020], 2)
    assert [file.read_text() for file in files] == [lines([8000, 8010, 8020], n) for n in (0, 1)]
    state.write_addresses(tmp_path, [9000, 9010], 2)
    assert [file.read_text() for file in files] == [lines([9000, 9010], n) for n in (0, 1)]
    files[1].write_bytes(b"\xff" + files[1].read_bytes()[:20])
    damaged = files[1].read_bytes()
    state.write_addresses(tmp_path, [7000, 7010], 2)
    assert (files[0].read_text(), files[1].read_bytes()) == (lines([7000, 7010], 0), damaged)
