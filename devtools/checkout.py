"""A checkout: its folders, its `.env`, and the origin of each setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from devtools import envfile, environment, names
from devtools.address import AUTO, running_port, running_redis
from devtools.envfile import EnvFile
from services.common.settings import masked


@dataclass(frozen=True)
class Checkout:
    """A checkout and the environment of the command that runs in it."""

    folder: Path
    state: Path
    environ: Mapping[str, str]
    dotenv: EnvFile

    @cached_property
    def origins(self) -> dict[str, Mapping[str, str]]:
        """The non-empty variables of the shell, and those of `.env` that it does not override.

        Lowest priority: settings of the stack's own Redis at the last start (`--cluster`).
        """

        def effective(values: Mapping[str, str]) -> dict[str, str]:
            ours = (item for item in values.items() if item[0] not in environment.SET_BY_THE_STACK)
            return {name: value for name, value in ours if value}

        file = effective(self.dotenv.values)
        seen = {name: value for name, value in file.items() if name not in self.environ}
        last = running_redis(self.state, {**seen, **effective(self.environ)})
        return {"environment": effective(self.environ), ".env": seen, "the last start": last}

    @cached_property
    def merged(self) -> Mapping[str, str]:
        """The environment of the stack's processes, running or at the next start."""
        return {k: v for values in reversed(self.origins.values()) for k, v in values.items()}

    @property
    def first_port(self) -> int:
        """The router's port, of the running stack or of the next start.

        Raises:
            AddressError: PLATFORM_PORT is wrong.
        """
        return running_port({**self.merged, "PLATFORM_STATE": str(self.state)})

    def origin(self, name: str) -> str:
        """Where the variable is set."""
        return next(
            (origin for origin, values in self.origins.items() if name in values), "default"
        )


def of_stack(environ: Mapping[str, str]) -> Checkout:
    """The checkout of a process of the stack, whose working folder may be in the store."""
    folder = environ.get("PLATFORM_CHECKOUT")
    return _at(Path(folder) if folder else envfile.checkout(environ), environ)


def current(environ: Mapping[str, str]) -> Checkout:
    """The checkout around the working folder, for a command."""
    return _at(envfile.checkout(environ), environ)


def _at(folder: Path, environ: Mapping[str, str]) -> Checkout:
    dotenv = envfile.read(folder / ".env")
    return Checkout(folder, envfile.state(environ, folder), environ, dotenv)


def dotenv_faults(checkout: Checkout) -> list[str]:
    """A line for each fault in `.env`."""
    values = checkout.dotenv.values
    found = checkout.dotenv.faults + [
        f".env: {typo}" for typo in names.typos(values, of_envfile=True)
    ]
    if values.get("PLATFORM_STATE"):
        found.append(
            ".env: PLATFORM_STATE is needed before .env is read: set it in the shell that starts "
            "the stack"
        )
    return found


def name_warnings(checkout: Checkout) -> list[str]:
    """A line for each variable that is probably a mistake."""
    values = checkout.dotenv.values
    dropped = checkout.environ.get("PLATFORM_DROPPED", "").split()
    shell = [name for name in (*checkout.environ, *dropped) if name not in values]
    ignored = [
        f".env: {name} has no effect: {why}"
        for name, why in environment.SET_BY_THE_STACK.items()
        if values.get(name)
    ]
    unknown = [
        f".env: {name} is not a setting; the processes get it all the same"
        for name in sorted(values.keys() - names.known())
        if not names.typos([name], of_envfile=True)
    ]
    return ignored + unknown + [f"in the environment: {typo}" for typo in names.typos(shell)]


@dataclass(frozen=True)
class Row:
    """A setting, its origin, and the services that read it."""

    variable: str
    value: str
    origin: str
    services: tuple[str, ...]


def rows(checkout: Checkout, first_port: int) -> list[Row]:
    """All settings at the next start; one row per distinct value."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for service, settings in environment.SETTINGS.items():
        stack = environment.environment(service, first_port, checkout.state, {})
        stack |= environment.sandbox_files(checkout.state)
        for setting in settings.explain({**checkout.origins, "stack": stack}):
            found.setdefault(setting, []).append(service)
    url = masked(checkout.merged.get("PLATFORM_URL", "")) or f"http://127.0.0.1:{first_port}"
    is_derived = checkout.state == checkout.folder / ".state"
    state_origin = "default" if is_derived else "environment"
    own = [
        Row("PLATFORM_PORT", str(first_port), _port_origin(checkout), ("stack",)),
        Row("PLATFORM_STATE", str(checkout.state), state_origin, ("stack",)),
        Row("PLATFORM_URL", url, checkout.origin("PLATFORM_URL"), ("merchant",)),
        Row("MERCHANT_PASSWORD", "<secret>", checkout.origin("MERCHANT_PASSWORD"), ("merchant",)),
    ]
    return own + [Row(*setting, tuple(services)) for setting, services in found.items()]


def _port_origin(checkout: Checkout) -> str:
    value = checkout.merged.get("PLATFORM_PORT", "")
    origin = checkout.origin("PLATFORM_PORT")
    if value == AUTO:
        return f"{origin} ({AUTO})"
    return origin if value or not (checkout.state / "environment").exists() else "the last start"
