"""The doctor's checks of the machine: state folder, disk, clock, flake."""

from __future__ import annotations

import json
import shutil
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devtools.checkout import Checkout
from devtools.findings import Finding
from devtools.state import bytes_of

# A rewrite of the append-only file needs its size again.
_DISK_MIB_MIN = 1024
_DISK_MIB_NEEDED = 100
_MIB = 1024**2
_FUTURE_SECONDS = 60  # a network file system's clock may be ahead


def state(checkout: Checkout) -> list[Finding]:
    """Mode and size of the state folder."""
    folder = checkout.state
    if not folder.exists():
        return [Finding("folder", str(folder), "note", "made by the first start")]
    if not folder.is_dir():
        cure = "move it away, or name another folder in PLATFORM_STATE"
        return [Finding("folder", str(folder), "fault", "not a folder", cure)]
    found = [Finding("folder", str(folder)), _mode(folder, 0o700)]
    if (secret := folder / "jwt-secret").exists():
        found.append(_mode(secret, 0o600))
    size = f"{bytes_of(folder) // _MIB} MiB"
    return [*found, Finding("size", size, note="`platform reset` removes it")]


def _mode(path: Path, required: int) -> Finding:
    """Preflight corrects the mode at each start; until then, others may read a secret."""
    mode = stat.S_IMODE(path.stat().st_mode)
    name = "mode" if path.is_dir() else f"mode of {path.name}"
    if mode == required:
        return Finding(name, f"{mode:o}")
    note, cure = f"must be {required:o}", f"chmod {required:o} {path}"
    return Finding(name, f"{mode:o}", "fault", note, cure)


def dotenv(checkout: Checkout) -> list[Finding]:
    """Whether others can read a secret in `.env`."""
    path = checkout.folder / ".env"
    if not path.is_file():
        return [Finding(".env", "none", note="every setting has a default")]
    mode, values = stat.S_IMODE(path.stat().st_mode), checkout.dotenv.values
    secrets = ("SECRET", "SECRET_PREVIOUS", "_KEY", "PASSWORD")
    has_secret = any(n.endswith(secrets) or "@" in value for n, value in values.items())
    if has_secret and mode & 0o077:
        note, cure = "others may read the secrets in it", f"chmod 600 {path}"
        return [Finding(".env", f"{mode:o}", "warning", note, cure)]
    return [Finding(".env", f"{mode:o}", note=f"{len(values)} settings")]


def disk(checkout: Checkout) -> list[Finding]:
    """Free disk space."""
    folder = next(path for path in (checkout.state, *checkout.state.parents) if path.exists())
    free_mib = shutil.disk_usage(folder).free // _MIB
    note, value = f"on the disk of {folder}", f"{free_mib / 1024:.1f} GiB free"
    if free_mib >= _DISK_MIB_MIN:
        return [Finding("disk", value, note=note)]
    cure = "free some: Redis refuses writes when the disk is full, and payments get 503"
    status: Any = "fault" if free_mib < _DISK_MIB_NEEDED else "warning"
    return [Finding("disk", value, status, note, cure)]


def clock(checkout: Checkout) -> list[Finding]:
    """Whether the clock is plausible: not before the date of the pinned nixpkgs."""
    pinned = float(_lock(checkout).get("lastModified", 0))
    value = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if pinned <= time.time() + _FUTURE_SECONDS:
        return [Finding("clock", value)]
    note = "before the date of the pinned nixpkgs"
    cure = "set the clock: tokens live 30 seconds by it, and TLS certificates have dates"
    return [Finding("clock", value, "fault", note, cure)]


def flake(checkout: Checkout) -> list[Finding]:
    """The nixpkgs pin."""
    lock = _lock(checkout)
    if not lock:
        cure = "restore it: git checkout flake.lock"
        return [Finding("flake.lock", "unreadable", "fault", "nothing is pinned", cure)]
    date = datetime.fromtimestamp(int(lock.get("lastModified", 0)), UTC)
    return [Finding("pin", str(lock.get("rev"))[:12], note=f"nixpkgs of {date:%F}")]


def _lock(checkout: Checkout) -> dict[str, Any]:
    try:
        lock = json.loads((checkout.folder / "flake.lock").read_text("utf-8"))
        locked: dict[str, Any] = lock["nodes"]["nixpkgs"]["locked"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return locked
