"""The requested service: its names and port, validated."""

import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools.address import DEFAULT_PORT, listeners
from devtools.catalog import SERVICES
from devtools.new import CONTAINERS, INHERITED, NewError
from devtools.new.unsynced import blocks

# A number at the end would be a replica: psp-connector-1.
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*")
_NAME_CHARACTERS_MAX = 24
_ROUTE = re.compile(r"[a-z][a-z0-9-]*")
# Further connectors listen at +13, +23, ...; `auto` has blocks of 50 ports.
_OFFSETS = [offset for offset in range(6, 50) if offset % 10 != 3]


@dataclass(frozen=True)
class Request:
    """A service to create; removal uses only its name."""

    name: str
    route: str = ""
    is_worker: bool = False
    has_redis: bool = False

    @property
    def folder(self) -> str:
        """Its folder in services/ and tests/, a Python package."""
        return self.name.replace("-", "_")

    @property
    def folders(self) -> tuple[str, str]:
        """Its folders in the checkout."""
        return f"services/{self.folder}", f"tests/{self.folder}"

    def facts(self, root: Path, port: int | None) -> dict[str, Any]:
        """The variables of the template.

        Raises:
            NewError: the name, the route or the port is invalid or taken.
        """
        self._check_name(root)
        self._check_route()
        words = self.name.split("-")
        return {
            "name": self.name,
            "folder": self.folder,
            "variable": self.folder.upper(),
            "title": " ".join(w.upper() if w in {"api", "psp"} else w.capitalize() for w in words),
            "class": "".join(word.capitalize() for word in words if word != "api") or "Api",
            "description": "processes jobs" if self.is_worker else "greets",
            "port_offset": _offset(port),
            "route": self.route,
            "worker": self.is_worker,
            "redis": self.has_redis or self.is_worker,
            "packages": self._packages(),
        }

    def _packages(self) -> list[str]:
        """The packages of this kind of service, besides those of all."""
        server = [] if self.is_worker else ["gunicorn"]
        return [*server, "hiredis", "redis"] if self.has_redis or self.is_worker else server

    def _check_name(self, root: Path) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > _NAME_CHARACTERS_MAX:
            raise NewError(
                f"{self.name!r} is not a valid service name: at most {_NAME_CHARACTERS_MAX}"
                " lower-case letters and digits, in words that start with a letter, joined by"
                " hyphens, such as rates-api"
            )
        for folder in (*self.folders, self.folder):
            for path in (folder, f"{folder}.py"):
                if _exists(root / path):
                    raise NewError(f"{self.name} is taken: {path} exists")
        is_keyword = keyword.iskeyword(self.folder) or self.name in {"false", "null", "true"}
        if is_keyword or _is_module(self.folder):
            raise NewError(
                f"{self.name} is a Python module, or a keyword of Python or YAML: choose another"
            )
        stacks = {file.name: "processes" for file in root.glob("process-compose*.yaml")}
        for file, section in (stacks | {CONTAINERS: "services"}).items():
            if self.name in blocks((root / file).read_text("utf-8"), section):
                raise NewError(f"{self.name} is taken: {file} has a block of that name")
        variables = (root / INHERITED).read_text("utf-8")
        if taken := re.search(rf"^{self.folder.upper()}_\w*", variables, re.MULTILINE):
            raise NewError(
                f"{self.name} is taken: its settings would share the prefix of {taken[0]}"
            )

    def _check_route(self) -> None:
        if self.is_worker:
            return
        taken = {s.route: s.name for s in SERVICES.values()} | {"health": "the router"}
        if not _ROUTE.fullmatch(self.route):
            raise NewError(
                f"{self.route!r} is not a valid route: lower-case letters, digits and hyphens, no /"
            )
        if self.route in taken:
            raise NewError(f"the route /{self.route} is taken by {taken[self.route]}")


def _exists(path: Path) -> bool:
    """Not a folder in which git has left only the caches of a removed service."""
    return path.is_file() or any(file.name != "__pycache__" for file in path.glob("*"))


def _is_module(name: str) -> bool:
    return name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None


def _offset(port: int | None) -> int:
    taken = {number: name for name, number in listeners(0, {"REDIS_CLUSTER": "1"}).items()}
    if port is None:
        return next(offset for offset in _OFFSETS if offset not in taken)
    offset = port - DEFAULT_PORT
    if offset in taken:
        raise NewError(f"port {port} is taken by {taken[offset]}")
    if offset not in _OFFSETS:
        raise NewError(
            f"port {port} cannot be used: choose one from {DEFAULT_PORT + _OFFSETS[0]} to"
            f" {DEFAULT_PORT + _OFFSETS[-1]} that does not end in 3, as further connectors' do"
        )
    return offset
