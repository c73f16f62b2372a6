"""direnv loads the development shell, and leaves nothing of Nix's own in the user's."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# What direnv offers to an .envrc, and what `nix print-dev-env` prints.
DIRENV = """\
has() { true; }
watch_file() { true; }
direnv_layout_dir() { echo "$PWD/.direnv"; }
. ./.envrc
echo "$SHELL_IS ${TMPDIR-unset} ${TEMP-unset} ${NIX_BUILD_TOP-unset} ${PC_DISABLE_TUI-unset}"
"""
NIXW = """\
#!/bin/sh
[ -d "${3%/*}" ] || exit 1
mkdir nix-shell.1
echo 'NIX_BUILD_TOP=$PWD/nix-shell.1'
echo 'export NIX_BUILD_TOP TMP=$NIX_BUILD_TOP TMPDIR=$NIX_BUILD_TOP TEMP=$NIX_BUILD_TOP'
echo 'export SHELL_IS=loaded PC_DISABLE_TUI=1'
"""


def test_the_shell_is_loaded_and_the_temporary_folder_is_the_users(tmp_path: Path) -> None:
    """Nix' folder for a build is removed: each load would leave one behind."""
    shutil.copy(ROOT / ".envrc", tmp_path)
    (tmp_path / "nixw").write_text(NIXW)
    (tmp_path / "nixw").chmod(0o755)
    done = subprocess.run(
        ["bash", "-euc", DIRENV],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TMPDIR": "/my tmp"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ("loaded /my tmp unset unset unset\n", "") == (done.stdout, done.stderr)
    assert not (tmp_path / "nix-shell.1").exists()
