"""The doctor's checks of the machine: state folder, disk, clock, flake."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.findings import Finding

if TYPE_CHECKING:
    from devtools.checkout import Checkout

_FILES_MAX = 100_000
_GIT_SECONDS_MAX = 5
# A rewrite of the append-only file needs its size again.
_DISK_BYTES_WANTED = 1024**3
_DISK_BYTES_NEEDED = 100 * 1024**2
_FUTURE_SECONDS = 60  # a network file system's clock may be ahead


def state(checkout: Checkout) -> list[Finding]:
    """Owner, mode and size of the state folder."""
    folder = checkout.state
    if not folder.exists():
        return [Finding("state", "folder", str(folder), "note", "made by the first start")]
    if not folder.is_dir():
        cure = "move it away, or name another folder in PLATFORM_STATE"
        return [Finding("state", "folder", str(folder), "fault", "is no folder", cure)]
    found = [Finding("state", "folder", str(folder)), _mode(folder, 0o700), _owner(folder)]
    secret = folder / "jwt-secret"
    if secret.exists():
        found.append(_mode(secret, 0o600))
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        cure = f"chmod u+rwx {folder}"
        return [*found, Finding("state", "access", "denied", "fault", "not writable", cure)]
    return [*found, _size(folder)]


def _mode(path: Path, wanted: int) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    name = "mode" if path.is_dir() else f"mode of {path.name}"
    if mode == wanted:
        return Finding("state", name, f"{mode:o}")
    cure = f"chmod {wanted:o} {path}"
    # Preflight mends it at each start; until then others may read a secret.
    return Finding("state", name, f"{mode:o}", "fault", f"must be {wanted:o}", cure)


def _owner(folder: Path) -> Finding:
    owner = folder.stat().st_uid
    if owner == os.geteuid():
        return Finding("state", "owner", "you")
    cure = "chown it, or start the stack as its owner"
    return Finding("state", "owner", f"uid {owner}", "fault", f"you are uid {os.geteuid()}", cure)


def _size(folder: Path) -> Finding:
    total = files = 0
    for root, _folders, names in os.walk(folder):
        for name in names:
            files += 1
            try:
                total += Path(root, name).lstat().st_size
            except OSError:  # rotated away meanwhile
                continue
        if files > _FILES_MAX:
            break
    return Finding("state", "size", _bytes(total), note=f"{files} files")


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def dotenv(checkout: Checkout) -> list[Finding]:
    """Whether others can read a secret in `.env`."""
    path = checkout.folder / ".env"
    if not path.is_file():
        return [Finding("state", ".env", "none", note="every setting has a default")]
    mode = stat.S_IMODE(path.stat().st_mode)
    secret = any(
        name.endswith(("SECRET", "SECRET_PREVIOUS", "_KEY", "PASSWORD")) or "@" in value
        for name, value in checkout.dotenv.values.items()
    )
    if secret and mode & 0o077:
        cure = f"chmod 600 {path}"
        note = "others may read the secrets in it"
        return [Finding("state", ".env", f"{mode:o}", "warning", note, cure)]
    return [Finding("state", ".env", f"{mode:o}", note=f"{len(checkout.dotenv.values)} settings")]


def disk(checkout: Checkout) -> list[Finding]:
    """Free space for Redis and the logs."""
    folder = next(one for one in (checkout.state, *checkout.state.parents) if one.is_dir())
    free = shutil.disk_usage(folder).free
    note = f"on the disk of {folder}"
    cure = "free some: Redis refuses writes when the disk is full, and payments get 503"
    if free < _DISK_BYTES_NEEDED:
        return [Finding("machine", "disk", f"{_bytes(free)} free", "fault", note, cure)]
    if free < _DISK_BYTES_WANTED:
        return [Finding("machine", "disk", f"{_bytes(free)} free", "warning", note, cure)]
    return [Finding("machine", "disk", f"{_bytes(free)} free", note=note)]


def clock(checkout: Checkout) -> list[Finding]:
    """Whether the clock is plausible: not before the pin, the last commit or the files."""
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    cure = "set the clock: tokens live 30 seconds by it, and TLS certificates have dates"
    for what, moment in _known_past(checkout):
        if moment > now + _FUTURE_SECONDS:
            when = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
            note = f"before {what} ({when})"
            return [Finding("machine", "clock", shown, "fault", note, cure)]
    return [Finding("machine", "clock", shown), *_files_of_the_future(checkout, now)]


def _known_past(checkout: Checkout) -> list[tuple[str, float]]:
    moments = [("the date of the pinned nixpkgs", float(_lock(checkout).get("lastModified", 0)))]
    try:
        done = subprocess.run(  # noqa: S603 - no shell reads it
            ["git", "-C", str(checkout.folder), "log", "-1", "--format=%ct"],  # noqa: S607 - PATH's
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS_MAX,
            check=True,
        )
        moments.append(("the checkout's last commit", float(done.stdout)))
    except (OSError, subprocess.SubprocessError, ValueError):
        pass  # no git, or not a repository
    return moments


def _files_of_the_future(checkout: Checkout, now: float) -> list[Finding]:
    candidates = [checkout.folder / "process-compose.yaml", checkout.folder / ".env"]
    candidates += [checkout.state / name for name in ("jwt-secret", "redis", "logs")]
    late = [
        path.name
        for path in candidates
        if path.exists() and path.stat().st_mtime > now + _FUTURE_SECONDS
    ]
    if not late:
        return []
    cure = "the clock went back, or they were copied from a machine that is ahead: touch them"
    return [Finding("machine", "file times", ", ".join(late), "warning", "in the future", cure)]


def flake(checkout: Checkout) -> list[Finding]:
    """The nixpkgs pin and the source of the packages."""
    lock = _lock(checkout)
    if not lock:
        cure = "take it back: git checkout flake.lock"
        return [Finding("machine", "flake.lock", "unreadable", "fault", "nothing is pinned", cure)]
    date = datetime.fromtimestamp(int(lock.get("lastModified", 0)), UTC).strftime("%Y-%m-%d")
    found = [Finding("machine", "pin", str(lock.get("rev"))[:12], note=f"nixpkgs of {date}")]
    try:
        road = (checkout.folder / ".state/nixw/road").read_text("utf-8").strip()
    except OSError:
        return found
    told = {"pin": "the pinned nixpkgs", "host": "the machine and its registries (nix/host)"}
    note = "nixw looks again after: rm -r .state/nixw"
    return [*found, Finding("machine", "packages", told.get(road, road), note=note)]


def _lock(checkout: Checkout) -> dict[str, Any]:
    try:
        lock = json.loads((checkout.folder / "flake.lock").read_text("utf-8"))
        locked: dict[str, Any] = lock["nodes"]["nixpkgs"]["locked"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return locked
