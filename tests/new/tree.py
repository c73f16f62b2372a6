"""A copy of this tree in its own git repository, and `new` run in it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

_LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", ".git", ".state", ".hypothesis", ".*_cache", ".new-*", "result", "result-*"
)

RUN_SECONDS_MAX = 300  # mypy takes 10 s; the machine of a check is shared and slow at times

KINDS = {
    "extra-api": ["--route", "extra"],
    "extra-redis-api": ["--route", "extra-redis", "--redis", "--port", "8018"],
    "extra-worker": ["--worker"],
}
"""A service of each kind: its name, and the other arguments of `new service`."""


@dataclass(frozen=True)
class Tree:
    """The copy."""

    folder: Path

    def run(
        self, *args: str, cwd: Path | None = None, path: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program as in a shell with this code, without the user's git settings.

        Programs in `path` come first. The umask is that of the flake's programs.
        """
        environ = {
            "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache"),
        }
        return subprocess.run(
            args, cwd=cwd or self.folder, env=environ, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False, umask=0o077,
        )  # fmt: skip

    def new(self, *args: str, **where: Path) -> subprocess.CompletedProcess[str]:
        """Runs `new`."""
        return self.run(sys.executable, "-m", "devtools.new", *args, **where)

    def git(self, *args: str) -> str:
        """Runs git; returns what it printed."""
        done = self.run("git", *args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self) -> None:
        """Commits all there is."""
        self.git("add", "--all")
        who = "-c", "user.name=x", "-c", "user.email=x"
        self.git(*who, "commit", "--quiet", "--message", "x")


def copy(folder: Path) -> Tree:
    """Makes the copy."""
    shutil.copytree(ROOT, folder, ignore=_LEFT_OUT)
    tree = Tree(folder)
    tree.git("init", "--quiet")
    tree.commit()
    return tree
