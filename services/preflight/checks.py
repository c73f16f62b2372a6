"""Looks for everything that would keep the stack from starting, and says it all at once."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from services.auth_api.users import UsersError, load
from services.preflight import plan, ports
from services.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.preflight.ports import Holder

PROGRAMS = ("redis-server", "redis-cli", "caddy", "curl")
_FOLDERS = ("logs", "redis", "caddy", "ready")


def first_port(environ: Mapping[str, str]) -> int:
    """PLATFORM_PORT as a number.

    Raises:
        ValueError: it is none that leaves room for the others; the text says what to do.
    """
    text = environ.get("PLATFORM_PORT") or "8000"
    highest = 65_536 - plan.BLOCK
    if not (text.isascii() and text.isdigit() and 1024 <= int(text[:6]) <= highest):
        raise ValueError(f"PLATFORM_PORT={text!r}: must be a number from 1024 to {highest}")
    return int(text)


def prepare(state: Path) -> list[str]:
    """Makes the state folder and the secret where they are missing; returns what went wrong."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        for name in _FOLDERS:
            (state / name).mkdir(mode=0o700, exist_ok=True)
        for stamp in (state / "ready").iterdir():
            stamp.unlink()
        # The clock of services/preflight/ready.py runs from here: this is the first process.
        (state / "ready" / "preflight").touch()
        _make_secret(state / "jwt-secret")
    except OSError as error:
        cure = "give write permission, or name another folder in PLATFORM_STATE"
        return [f"PLATFORM_STATE={str(state)!r}: {error.strerror} ({error.filename}): {cure}"]
    return []


def _make_secret(path: Path) -> None:
    # Written under another name first, so that a start that is killed leaves no half of one.
    if path.exists():
        path.chmod(0o600)
        return
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    draft.rename(path)


def missing_programs(environ: Mapping[str, str]) -> list[str]:
    """A line for each program that is not on PATH."""
    return [
        f"{name} is not on PATH: start from `nix develop`, or with `nix run`"
        for name in PROGRAMS
        if shutil.which(name, path=environ.get("PATH", "")) is None
    ]


def wrong_settings(first: int, state: Path, environ: Mapping[str, str]) -> list[str]:
    """A line for each setting that a service would refuse, each told once."""
    faults: dict[str, list[str]] = {}
    for service, settings_class in plan.SETTINGS.items():
        given = plan.environment(service, first, state, environ)
        try:
            settings_class.read(given)
        except SettingsError as error:
            for fault in error.faults:
                faults.setdefault(fault, []).append(service)
    told = [f"{fault} [{', '.join(services)}]" for fault, services in faults.items()]
    return told + _wrong_users(environ.get("USERS_FILE"))


def _wrong_users(path: str | None) -> list[str]:
    if not path or not Path(path).is_file():  # that it is no file was told above
        return []
    try:
        load(Path(path))
    except UsersError as error:
        return [f"USERS_FILE: {error} [auth-api]"]
    return []


def busy_ports(first: int, state: Path) -> list[str]:
    """A line for each port of the stack that somebody holds."""
    numbers = {first + offset: name for name, offset in plan.PORT_OFFSETS.items()}
    busy = [port for port in numbers if not ports.is_free(port)]
    if not busy:
        return []
    found = ports.holders(busy)
    unknown = ports.Holder(None, "")
    other = ports.free_block(first, plan.BLOCK)
    cure = f"start with PLATFORM_PORT={other}" if other else "choose another PLATFORM_PORT"
    return [_busy(port, numbers[port], found.get(port, unknown), state, cure) for port in busy]


def _busy(port: int, process: str, holder: Holder, state: Path, cure: str) -> str:
    if holder.state == os.path.realpath(state):
        cure = (
            "a stack of this checkout is running, or was left behind: "
            f"`process-compose down`, or if nothing answers that, kill {holder.pid}"
        )
    return f"port {port} ({process}) is held by {holder}: {cure}"
