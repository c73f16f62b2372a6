"""Runs commands as a container engine does for deploy/compose.yaml, as far as permitted."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

# `read_only`, `tmpfs` and volumes; then `cap_drop` and `no-new-privileges`.
CONTAINED = """
mount=$1 setpriv=$2 volumes=$3 folder=$4
shift 4
"$mount" --bind "$volumes" "$volumes"
"$mount" -o remount,bind,ro /
"$mount" -t tmpfs -o size=64m,noexec,nosuid,nodev tmpfs /tmp
cd "$folder"
exec "$setpriv" --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$@"
"""
# The user of the tests is the image's in a namespace of its own, so volumes are that user's.
NAMESPACE = ["--map-user=65532", "--map-group=65532", "--keep-caps", "--mount"]


def contained(command: list[str], *, volumes: Path, folder: Path) -> list[str]:
    """The command as the image's user, on a read-only file system, without any capability.

    `volumes` can be written to, and it is started in `folder`. Where the system does not allow it,
    it is the command alone.
    """
    return [*_words(volumes, folder), *command] if _can_be_contained() else command


def volume_root() -> Path | None:
    """A folder for volumes outside /tmp; a Nix sandbox has only its build folder."""
    for text in ("/var/tmp", os.environ.get("NIX_BUILD_TOP", "/var/tmp")):  # noqa: S108
        path = Path(text).resolve()
        if path.is_dir() and not path.is_relative_to("/tmp"):  # noqa: S108
            return path
    return None


@functools.cache
def _can_be_contained() -> bool:
    volumes, true = volume_root(), shutil.which("true")
    if volumes is None or true is None or not all(_programs()):
        return False
    trial = [*_words(volumes, Path("/")), true]
    return subprocess.run(trial, capture_output=True, timeout=20, check=False).returncode == 0


def _programs() -> list[str]:
    return [shutil.which(name) or "" for name in ("unshare", "sh", "mount", "setpriv")]


def _words(volumes: Path, folder: Path) -> list[str]:
    unshare, shell, mount, setpriv = _programs()
    outside = [unshare, *NAMESPACE, shell, "-euc", CONTAINED, "sh"]
    return [*outside, mount, setpriv, str(volumes), str(folder)]
