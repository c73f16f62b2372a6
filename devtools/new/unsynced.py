"""Which of the stack's files lack a service, or have one that is gone, as after a merge.

A quick check at each start; `new sync` (derived.py) updates the files.
"""

import re
from pathlib import Path

from devtools.catalog import PYTHON, SERVICES
from devtools.new import CADDYFILE, PROCESS_COMPOSE

_ROOT = Path(__file__).parents[2]
MODULE = re.compile(r"python -m services\.(\w+)")
ROUTE = re.compile(r"^\t\timport service (\S+) \{\$(\w+)_ADDRESS:", re.MULTILINE)


def faults(root: Path = _ROOT) -> list[str]:
    """A line for each file below `root` that does not match the services."""
    differing = {
        PROCESS_COMPOSE: _processes(_text(root / PROCESS_COMPOSE)),
        CADDYFILE: _routes(_text(root / CADDYFILE)),
    }
    return [
        f"{file} and services/ do not match ({', '.join(sorted(names))}): `new sync`"
        for file, names in differing.items()
        if names
    ]


def _text(path: Path) -> str:
    """The file's text; empty if it is missing."""
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def _processes(text: str) -> set[str]:
    """Services without a process, and processes of services that are gone."""
    started = {module.replace("_", "-") for module in MODULE.findall(text)}
    return {
        name
        for name in started | PYTHON.keys()
        if bool(block(name).search(text)) != (name in PYTHON)
    }


def block(name: str) -> re.Pattern[str]:
    """The beginning of the block of a process or container; a comment or an anchor may follow."""
    return re.compile(rf"^  (['\"]?){name}\1:(?=\s)", re.MULTILINE)


def _routes(text: str) -> set[str]:
    """Routes that are only in the file, or only in a service.toml."""
    routed = {(one.route, one.variable) for one in SERVICES.values() if one.route}
    return {f"/{route}" for route, _ in routed ^ {*ROUTE.findall(text)}}
