"""The stack's processes, read from `services/<folder>/service.toml`, and the console's.

Nix reads the same files for packages and images (nix/package.nix).
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.common.settings import Settings

_OFFSETS = 100
_SERVICES = Path(__file__).resolve().parents[1] / "services"


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"platform: correct {path}: {error}")


_SHARED = _toml(_SERVICES / "common/packages.toml").get("packages", [])


@dataclass(frozen=True)
class Service:
    """One process that listens on a port."""

    name: str
    """The name in process-compose.yaml, such as `core-api`."""
    port_offset: int
    """Added to PLATFORM_PORT."""
    description: str = ""
    """Of a Python service: also its description in process-compose.yaml."""
    route: str = ""
    """The router's prefix without slashes; empty if the router does not route to it."""
    needs: tuple[str, ...] = ()
    """Processes that must be ready before this one starts."""
    stop_seconds: int = 2
    """From SIGTERM to SIGKILL."""
    packages: tuple[str, ...] = ()
    """Python packages that it imports; empty for Redis and the router."""

    def port(self, first_port: int, replica: int = 0) -> int:
        """Its port, from the router's; replica n of a scaled service listens 10 n higher."""
        return first_port + self.port_offset + 10 * replica

    def url(self, first_port: int, replica: int = 0) -> str:
        """Its address. Not `localhost`, which may resolve to ::1."""
        scheme = "redis" if self.name == "redis" else "http"
        return f"{scheme}://127.0.0.1:{self.port(first_port, replica)}"

    @property
    def folder(self) -> str:
        """Its folder below services/."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The prefix of its variables, such as `CORE_API` in CORE_API_PORT."""
        return self.folder.upper()

    def settings(self) -> type[Settings]:
        """The settings class in the service's module `settings`."""
        from services.common.settings import Settings  # noqa: PLC0415 - a client needs no settings

        module = importlib.import_module(f"services.{self.folder}.settings")
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Settings)
            and value.__module__ == module.__name__
        ]
        if len(found) != 1:
            raise TypeError(f"must have one settings class, not {len(found)}")
        return found[0]


def _fault(fields: Mapping[str, Any]) -> str:
    """What is wrong with the values of a service.toml; empty if nothing is."""
    offset, seconds = fields.get("port_offset"), fields.get("stop_seconds", 1)
    lists = [fields.get(name, []) for name in ("needs", "packages")]
    keys = Service.__annotations__.keys() - {"name"}
    is_right = {
        f"port_offset must be a number below {_OFFSETS}": (
            isinstance(offset, int) and offset in range(_OFFSETS)
        ),
        "stop_seconds must be a number above 0": isinstance(seconds, int) and seconds > 0,
        "description must be a text": isinstance(fields.get("description", ""), str),
        "route must have lower-case letters, digits and hyphens only": (
            re.fullmatch("[a-z0-9-]*", str(fields.get("route", "")))
        ),
        "needs and packages must be lists of texts": all(
            isinstance(items, list) and {*map(type, items)} <= {str} for items in lists
        ),
        f"its keys must be among {', '.join(sorted(keys))}": fields.keys() <= keys,
    }
    return next((rule for rule, holds in is_right.items() if not holds), "")


def _read(path: Path) -> Service:
    fields = _toml(path)
    fault = _fault(fields)
    is_python = path.with_name("__main__.py").exists() and path.is_relative_to(_SERVICES)
    if is_python and "packages" not in fields:
        fault = fault or "packages is missing: [] if it imports only what all services do"
    if fault:
        sys.exit(f"platform: correct {path}: {fault}")
    if "packages" in fields:
        fields["packages"] += _SHARED
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return Service(name=path.parent.name.replace("_", "-"), **fields | lists)


_FILES = _SERVICES.glob("*/service.toml")
SERVICES = {
    service.name: service
    # Not of a copy such as `core_api.bak`, which is no package.
    for service in sorted(
        (_read(path) for path in _FILES if path.parent.name.isidentifier()),
        key=lambda service: service.port_offset,
    )
}
"""All services by name, in port order."""

PYTHON = {name: service for name, service in SERVICES.items() if service.packages}
"""The services with code of ours, unlike Redis and the router."""

CONSOLE = _read(Path(__file__).parent / "console/service.toml")
"""Not a service: it is optional, and nothing waits for it."""

LISTENERS = SERVICES | {CONSOLE.name: CONSOLE}
"""All processes that listen on a port."""

PROCESSES = (*LISTENERS, "preflight", "ready", "reload", "smoke")
"""The names in process-compose.yaml."""

REDIS_NODES = ("redis", "redis-1", "redis-2", "redis-3", "redis-4", "redis-5")
"""The nodes of the stack's Redis Cluster: three primaries, each with a replica."""

ALL_PROCESSES = {*PROCESSES, *REDIS_NODES, "redis-cluster"}
"""The names in process-compose.yaml and process-compose.cluster.yaml."""
