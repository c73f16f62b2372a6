"""direnv loads the development shell, and no temporary folder is left behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT, call, script

# What direnv offers to an .envrc, and what `nix print-dev-env` prints.
DIRENV = """\
has() { true; }
log_error() { echo "error: $1"; }
watch_file() { true; }
direnv_layout_dir() { echo "$PWD/.direnv"; }
. ./.envrc
echo "$SHELL_IS ${TMPDIR-unset} ${TEMP-unset} ${NIX_BUILD_TOP-unset}"
"""
NIXW = f"""\
[ -d "${{3%/*}}" ] || exit 1
mkdir nix-shell.1
echo 'NIX_BUILD_TOP=$PWD/nix-shell.1'
echo 'export NIX_BUILD_TOP TMP=$NIX_BUILD_TOP TMPDIR=$NIX_BUILD_TOP TEMP=$NIX_BUILD_TOP'
echo 'eval "$(PLATFORM_CHECKOUT=$PWD {sys.executable} -I {ROOT}/devtools/locate.py)"'
echo 'export SHELL_IS=loaded'
"""


def load(folder: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / ".envrc", folder)
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(folder)}
    return call(["bash", "-euc", DIRENV], environ, cwd=folder)


def test_the_shell_is_loaded_and_the_temporary_folder_is_the_users(tmp_path: Path) -> None:
    """The folder that Nix creates for each shell is removed; TMPDIR is its parent, as before."""
    script(tmp_path / "nixw", NIXW)
    done = load(tmp_path)
    assert (done.stdout, done.stderr) == (f"loaded {tmp_path} unset unset\n", "")
    assert not (tmp_path / "nix-shell.1").exists()


def test_a_shell_that_cannot_be_built_is_reported_and_the_last_one_kept(tmp_path: Path) -> None:
    """Without an earlier shell, loading fails."""
    script(tmp_path / "nixw", "exit 1")
    assert load(tmp_path).returncode != 0
    script(tmp_path / "nixw", NIXW)
    load(tmp_path)
    script(tmp_path / "nixw", "exit 1")
    *errors, loaded = load(tmp_path).stdout.splitlines()
    assert (len(errors), loaded) == (2, f"loaded {tmp_path} unset unset")
