"""A copy of what `new` changes: everything is written there first, then moved into the checkout.

The moves are renames on one file system, with signals blocked, and are undone if one fails or git
refuses. So a failed or interrupted command has changed nothing; after a `kill -9` between two
renames, `new remove NAME` cleans up.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from devtools.new import FILES, NewError, checkout

_COPIED = ("services", "devtools", "pyproject.toml", *FILES)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECONDS_MAX = 60
_CACHES = shutil.ignore_patterns("__pycache__")


@dataclass
class Staging:
    """The copy in `folder` of the checkout `root`."""

    root: Path
    folder: Path
    changed: list[str] = field(default_factory=list)
    """The derived files that differ from the checkout's."""

    def write(self, files: Mapping[str, str]) -> None:
        """Writes new files of the copy."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")

    def sync(self) -> None:
        """Updates the copy's derived files, using the copy's code.

        Raises:
            NewError: the code cannot be loaded.
        """
        self._run("the derived files", [sys.executable, "-m", "devtools.new.derived"])
        self.changed = [
            name
            for name in FILES
            if (self.folder / name).read_bytes() != (self.root / name).read_bytes()
        ]

    def format(self, folders: Sequence[str]) -> None:
        """Sorts imports and breaks lines, which depend on the service's name.

        Raises:
            NewError: ruff failed.
        """
        self._run(
            "the template", ["ruff", "check", "--no-cache", "--select", "I", "--fix", *folders]
        )
        self._run("the template", ["ruff", "format", "--no-cache", *folders])

    def _run(self, what: str, command: Sequence[str]) -> None:
        environ = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(  # noqa: S603  ruff, or this program again
            command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_SECONDS_MAX, check=False,
        )  # fmt: skip
        if done.returncode:
            why = done.stderr.strip().splitlines() or ["no output"]
            raise NewError(f"{what} cannot be made: {why[-1]}")

    def move(self, names: list[str], *command: str) -> None:
        """Moves these files and folders into the checkout; removes those that the copy lacks.

        Then runs the git command, if any.

        Raises:
            NewError: one cannot be moved, or git failed; the checkout is as before.
        """
        done: list[tuple[Path, Path]] = []

        def rename(source: Path, target: Path) -> None:
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)
                done.append((source, target))

        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            for name in names:
                rename(self.root / name, self.folder / ".old" / name)
                rename(self.folder / name, self.root / name)
            if command:
                checkout.git(self.root, *command)
        except (OSError, NewError) as error:
            for source, target in reversed(done):
                target.rename(source)
            raise NewError(f"nothing was changed: {error}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def staged(root: Path, folders: Sequence[str] = (), *git: str) -> Iterator[Staging]:
    """A copy to change; afterwards, its `folders` and derived files replace the checkout's.

    The git command, if any, gets the folders as its last arguments.
    """
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    os.umask(0o022)  # code is readable, unlike the state, for which the flake's programs set 077
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=root) as name:
            folder = Path(name)
            for copied in _COPIED:
                _copy(root / copied, folder / copied)
            staging = Staging(root, folder)
            yield staging
            staging.sync()
            command = [*git, "--", *folders] if git else []
            staging.move([*folders, *staging.changed], *command)
    except OSError as error:
        raise NewError(str(error)) from None


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        # A dangling link, such as Emacs' lock, is copied as one.
        shutil.copytree(source, target, symlinks=True, ignore=_CACHES)
    else:
        shutil.copy2(source, target)


def interrupt(_number: int, _frame: object) -> NoReturn:
    """Signal handler: ends the command like Ctrl-C."""
    raise KeyboardInterrupt
