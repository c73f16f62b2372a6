"""What a container engine does with deploy/compose.yaml, as far as a test is allowed to."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

USER = 65532
# `read_only`, `tmpfs` and volumes.
MOUNTS = """
mount=$1 volumes=$2 folder=$3
shift 3
"$mount" --bind "$volumes" "$volumes"
"$mount" -o remount,bind,ro /
"$mount" -t tmpfs -o size=64m,noexec,nosuid,nodev tmpfs /tmp
cd "$folder"
exec "$@"
"""
# `cap_drop` and `no-new-privileges`.
LESS = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
AS_USER = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
# The best first: as the image's user; as the user who runs the tests.
LEVELS = [([], AS_USER), (["--map-root-user"], [])]


def contained(command: list[str], *, volumes: Path, folder: Path) -> list[str]:
    """The command on a read-only file system with a /tmp of its own, without any capability.

    `volumes` can be written to, and it is started in `folder`. Where the system has not the
    programs for it or does not allow it, it is the command alone.
    """
    best = _level()
    return command if best is None else _words(best, command, volumes, folder)


def has_user() -> bool:
    """Whether it is the image's user that a command runs as."""
    return _level() == 0


def place() -> Path | None:
    """A folder for volumes outside /tmp; a Nix sandbox has only its build folder."""
    for text in ("/var/tmp", os.environ.get("NIX_BUILD_TOP", "/var/tmp")):  # noqa: S108
        path = Path(text).resolve()
        if path.is_dir() and not path.is_relative_to("/tmp"):  # noqa: S108
            return path
    return None


@functools.cache
def _level() -> int | None:
    volumes = place()
    needed = ("mount", "setpriv", "sh", "true", "unshare")
    if volumes is None or not all(map(shutil.which, needed)):
        return None
    first = 0 if os.geteuid() == 0 else 1
    for level in range(first, len(LEVELS)):
        trial = _words(level, [shutil.which("true") or ""], volumes, Path("/"))
        if subprocess.run(trial, capture_output=True, timeout=20, check=False).returncode == 0:
            return level
    return None


def _words(level: int, command: list[str], volumes: Path, folder: Path) -> list[str]:
    mount, setpriv, shell, unshare = (
        shutil.which(name) or "" for name in ("mount", "setpriv", "sh", "unshare")
    )
    namespace, user = LEVELS[level]
    return [
        *(unshare, "--mount", *namespace),
        *(shell, "-euc", MOUNTS, "sh", mount, str(volumes), str(folder)),
        *(setpriv, *user, *LESS),
        *command,
    ]
