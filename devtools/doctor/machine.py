"""The doctor's checks of the machine: programs, state folder, disk, clock."""

import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devtools.catalog import LISTENERS
from devtools.checkout import Checkout
from devtools.doctor.findings import Finding
from devtools.locate import access_fault
from devtools.loglines import file_of
from devtools.state import version_fault
from devtools.supervisor import ProcessState

_RESPONSE_SECONDS_MAX = 5
_ROOT = Path(__file__).parents[2]
_NUMBER = re.compile(r"\d+(\.\d+)+")
_START = "start from `nix develop`, or with `nix run`"
# A rewrite of the append-only file needs its size again.
_DISK_MIB_MIN = 1024
_DISK_MIB_NEEDED = 100
_MIB = 1024**2
_FUTURE_SECONDS = 60  # a network file system's clock may be ahead


# The arguments that make each print its version.
_PROGRAMS = {
    "redis-server": "--version",
    "redis-cli": "--version",
    "caddy": "version",
    "process-compose": "version --short",
}


def pinned() -> Mapping[str, str]:
    """The programs' versions in the nixpkgs that flake.lock pins."""
    known: Mapping[str, str] = json.loads((_ROOT / "nix/host/pinned.json").read_text("utf-8"))
    return known


def programs(environ: Mapping[str, str]) -> list[Finding]:
    """One finding per program."""
    with ThreadPoolExecutor(len(_PROGRAMS)) as pool:
        compared = list(pool.map(lambda program: _finding(program, environ), _PROGRAMS))
    return [_compared("python", platform.python_version(), sys.executable), *compared]


def _finding(program: str, environ: Mapping[str, str]) -> Finding:
    path = shutil.which(program, path=environ.get("PATH", ""))
    if path is None:
        return Finding(program, "missing", "fault", "not on PATH", _START)
    try:
        text = _output([path, *_PROGRAMS[program].split()], environ)
    except subprocess.TimeoutExpired:
        note = f"no response within {_RESPONSE_SECONDS_MAX} s; the machine may be busy"
        return Finding(program, "unknown", "warning", note)
    if match := _NUMBER.search(text):
        return _compared(program, match[0], path)
    return Finding(program, "unknown", "warning", "version not recognised")


def _output(command: Sequence[str], environ: Mapping[str, str]) -> str:
    try:
        return subprocess.run(  # noqa: S603 - the programs of _PROGRAMS, as PATH has them
            command,
            # process-compose would truncate the stack's log file.
            env={**environ, "PC_LOG_FILE": "/dev/null"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RESPONSE_SECONDS_MAX,
            check=False,
        ).stdout
    except OSError:
        return ""


def _compared(program: str, version: str, path: str) -> Finding:
    # With the host package set some programs are in the store, but not Python.
    if all(Path(p).resolve().is_relative_to("/nix/store") for p in (sys.executable, path)):
        return Finding(program, version, note="pinned")
    if version == (pin := pinned()["redis" if program.startswith("redis") else program]):
        return Finding(program, version, note="as pinned")
    return Finding(program, version, "note", f"pinned: {pin}")


def state(checkout: Checkout) -> list[Finding]:
    """Access to the state folder, its version, its mode and that of its secret."""
    folder = checkout.state
    if fault := access_fault(folder) or version_fault(folder):
        note, _, remedy = fault.partition(": ")
        return [Finding("folder", str(folder), "fault", note, remedy)]
    if not folder.exists():
        return [Finding("folder", str(folder), "note", "created at the first start")]
    findings = [Finding("folder", str(folder)), _mode(folder, 0o700)]
    if (secret := folder / "jwt-secret").exists():
        findings.append(_mode(secret, 0o600))
    return findings


def logs(checkout: Checkout, states: Iterable[ProcessState]) -> list[Finding]:
    """Running processes whose log file was deleted: what they log since then is lost."""
    ready = {one.name for one in states if one.is_ready and one.service in LISTENERS}
    lost = sorted(name for name in ready if not file_of(checkout.state, name).exists())
    remedy = "`platform process restart NAME`, or `platform down` and `up`, begins a new one"
    return [Finding(name, "no log", "warning", "its file was deleted", remedy) for name in lost]


def _mode(path: Path, required: int) -> Finding:
    """Preflight corrects the mode at each start; until then, others may read a secret."""
    mode = stat.S_IMODE(path.stat().st_mode)
    name = "mode" if path.is_dir() else f"mode of {path.name}"
    if mode == required:
        return Finding(name, f"{mode:o}")
    note, remedy = f"must be {required:o}", f"chmod {required:o} {path}"
    return Finding(name, f"{mode:o}", "fault", note, remedy)


def dotenv(checkout: Checkout) -> list[Finding]:
    """Whether others can read a secret in `.env`."""
    path = checkout.folder / ".env"
    if path.is_symlink() and not path.exists():
        return []  # reported with the settings
    if not path.is_file():
        return [Finding(".env", "none", note="every setting has a default")]
    mode, values = stat.S_IMODE(path.stat().st_mode), checkout.dotenv.values
    secrets = ("SECRET", "SECRET_PREVIOUS", "_KEY", "_TOKEN", "_HEADERS", "PASSWORD")
    has_secret = any(n.endswith(secrets) or "@" in value for n, value in values.items())
    if has_secret and mode & 0o077:
        note, remedy = "others may read the secrets in it", f"chmod 600 {path}"
        return [Finding(".env", f"{mode:o}", "warning", note, remedy)]
    return [Finding(".env", f"{mode:o}", note=f"{len(values)} settings")]


def disk(checkout: Checkout) -> list[Finding]:
    """Free disk space."""
    folder = next(
        path for path in (checkout.state, *checkout.state.parents) if os.access(path, os.F_OK)
    )
    free_mib = shutil.disk_usage(folder).free // _MIB
    note, value = f"on the disk of {folder}", f"{free_mib / 1024:.1f} GiB free"
    if free_mib >= _DISK_MIB_MIN:
        return [Finding("disk", value, note=note)]
    remedy = "free some: Redis refuses writes when the disk is full, and payments get 503"
    status: Any = "fault" if free_mib < _DISK_MIB_NEEDED else "warning"
    return [Finding("disk", value, status, note, remedy)]


def clock(checkout: Checkout) -> list[Finding]:
    """Whether the clock is plausible: not before flake.lock was written."""
    lock = checkout.folder / "flake.lock"
    written = lock.stat().st_mtime if lock.exists() else 0.0
    value = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if written <= time.time() + _FUTURE_SECONDS:
        return [Finding("clock", value)]
    remedy = "set the clock: tokens live 30 seconds by it, and TLS certificates expire"
    return [Finding("clock", value, "fault", "before flake.lock was written", remedy)]
