"""Which of the stack's files lack a service, or have one that is gone, as after a merge.

A quick check at each start; `new sync` (derived.py) updates the files.
"""

import re
from pathlib import Path

from devtools.catalog import PYTHON, SERVICES
from devtools.new import CADDYFILE, PROCESS_COMPOSE

_ROOT = Path(__file__).parents[2]
MODULE = re.compile(r"-m services\.(\w+)(?![.\w])")
_TOP_LEVEL = re.compile(r"^[^\s#]", re.MULTILINE)
_BLOCK = re.compile(r"(?:^  #.*\n)*^  (['\"]?)([\w.-]+)\1 *:(?=\s)", re.MULTILINE)
_ROUTE = re.compile(
    r"^\s*import\s+service\s+(\S+)\s+\{\$(\w+)_ADDRESS:"
    r"(127\.0\.0\.1:\2_ADDRESS-is-not-set)?",
    re.MULTILINE,
)


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
    present = blocks(text, "processes").keys()
    return {name for name in started | PYTHON.keys() if (name in present) != (name in PYTHON)}


def blocks(text: str, section: str) -> dict[str, int]:
    """Where each block below `section:` begins, with the comment above its name.

    The name may be quoted, and a comment or an anchor may follow it.
    """
    begin = re.search(rf"^{section}:", text, re.MULTILINE)
    if not begin:
        return {}
    end = _TOP_LEVEL.search(text, begin.end())
    found = _BLOCK.finditer(text, begin.end(), end.start() if end else len(text))
    return {match[2]: match.start() for match in found}


def own_processes(root: Path = _ROOT) -> set[str]:
    """The processes in process-compose.yaml, also those of other programs."""
    return {*blocks(_text(root / PROCESS_COMPOSE), "processes")}


def _routes(text: str) -> set[str]:
    """Routes that are only in the file, or only in a service.toml."""
    routed = {(one.route, one.variable) for one in SERVICES.values() if one.route}
    return {f"/{route}" for route, _ in routed ^ {*routes(text)}}


def routes(text: str) -> list[tuple[str, str]]:
    """The routes of services in the Caddyfile, also of those that are gone, with their variables.

    A line for another program, whose address is not as `new` writes it, is the user's own.
    """
    variables = {service.variable for service in SERVICES.values()}
    found = _ROUTE.finditer(text)
    return [(match[1], match[2]) for match in found if match[3] or match[2] in variables]


def routed(root: Path = _ROOT) -> set[str]:
    """The variables of the services that the Caddyfile refers to, also in blocks of the user's."""
    return {*re.findall(r"\{\$(\w+)_ADDRESS\b", _text(root / CADDYFILE))}
