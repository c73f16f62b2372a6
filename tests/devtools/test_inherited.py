"""nix/platform: what a program of ours inherits, and where it finds its stack."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from devtools import names
from tests.support import ROOT

FOLDER = ROOT / "nix/platform"
NOBODY = 65_534


def sourced(
    file: str, show: str, environ: dict[str, str], *, user: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Sources one of the folder's files as the programs do, then runs `show`."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'. "{FOLDER}/{file}" && {show}'],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PLATFORM_CODE": str(ROOT)} | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        user=user,
    )


def test_every_setting_is_inherited() -> None:
    """Each variable that something of ours reads, but for those that the stack sets itself."""
    ours = {name: "x" for name in names.known() if not re.match("HTTP_PORT|SANDBOX_", name)}
    shown = sourced("inherited.sh", "env", {**ours, "PLATFORM_CODE": str(ROOT)}).stdout
    assert ours.keys() <= {line.partition("=")[0] for line in shown.splitlines()}


def test_nothing_else_is_inherited_and_its_names_are_kept() -> None:
    """By name alone: for a misspelt setting, which preflight tells."""
    strange = {
        "PSP_TIMEOUT_SECOND": "hunter2",
        "LINES_OF_SEVERAL": 'hunter2\ndeclare -x PATH="/"\nQUEUE_LIMIT=hunter2',
        "SHELLOPTS": "hashall",
        "BASH_FUNC_env%%": "() { echo hunter2; }",
    }
    done = sourced("inherited.sh", "env", strange)
    assert (done.returncode, done.stderr) == (0, "")
    given = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert "hunter2" not in done.stdout
    dropped = set(given.pop("PLATFORM_DROPPED").split())
    assert strange.keys() - {"BASH_FUNC_env%%"} <= dropped
    assert os.environ["PATH"] == given["PATH"]
    assert ("UTC", str(ROOT)) == (given["TZ"], given["PYTHONPATH"])


def test_a_long_path_has_one_socket_whatever_the_session(tmp_path: Path) -> None:
    """`down` finds what `up` started in another session: XDG_RUNTIME_DIR has no part in it."""
    state = tmp_path / ("deep" * 25)
    found = {
        sourced("env.sh", 'echo "$PC_SOCKET_PATH"', {"PLATFORM_STATE": str(state)} | session).stdout
        for session in ({}, {"XDG_RUNTIME_DIR": str(tmp_path)}, {"XDG_RUNTIME_DIR": "/nowhere"})
    }
    [path] = found
    assert len(path.strip()) < 100


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
@pytest.mark.parametrize("made_by_root", [".", "jwt-secret"])
def test_state_of_another_user_is_named(made_by_root: str) -> None:
    """After a start with sudo: which file, and the command that takes it back."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        state = Path(folder, "state")
        state.mkdir()
        (state / "jwt-secret").touch()
        for name in {".", "jwt-secret"} - {made_by_root}:
            os.chown(state / name, NOBODY, NOBODY)
        done = sourced("env.sh", "true", {"PLATFORM_STATE": str(state)}, user=NOBODY)
    assert done.returncode == 1
    assert f"{state / made_by_root} belongs to another user" in done.stderr
    assert f"sudo chown -R {NOBODY} {state}" in done.stderr
