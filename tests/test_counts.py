"""nix/pytest/counts.py: the totals of a check."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

TESTS = """
import os

def test_good(): pass
def test_bad(): assert not True
def test_crash(): os.kill(os.getpid(), 9)
"""


def test_failures_are_counted(tmp_path: Path) -> None:
    """A failed test, one that ends its process, and a failed import each count once."""
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_broken.py").write_text("import nothing")
    command = [sys.executable, "-m", "pytest", "-p", "counts", "-n", "2", "--dist=worksteal"]
    environ = os.environ | {"PYTHONPATH": str(ROOT / "nix/pytest"), "COUNTS": str(tmp_path / "n")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert done.returncode == 1
    assert (tmp_path / "n").read_text() == "1 passed, 3 failed\n"
