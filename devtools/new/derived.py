"""Updates the files that are derived from service.toml and the settings classes.

`python -m devtools.new.derived` does so in this code's checkout. A service without a block in a
stack gets one from the template, and the block of a service that is gone is removed; changes by
hand, and blocks of the user's own, stay. Comments and order are kept.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from yaml.error import MarkedYAMLError

from devtools import settings
from devtools.address import DEFAULT_PORT, clashes
from devtools.catalog import PYTHON, SERVICES
from devtools.new import (
    CADDYFILE,
    CONTAINERS,
    EXAMPLE,
    INHERITED,
    PAGE,
    PROCESS_COMPOSE,
    containers,
    render,
)
from devtools.new.document import Document
from devtools.new.unsynced import MODULE, routed, routes

_INDENT = "\t\timport service"  # one further in is in a block of the user's


def processes(text: str) -> str:
    """Updates process-compose.yaml."""
    stack, used = Document(text), routed()
    for name, process in stack.data["processes"].items():
        module = MODULE.search(process.get("command", ""))
        if name not in SERVICES and module and module[1].replace("_", "-") == name:
            stack.remove_block("processes", name)
    for name, service in PYTHON.items():
        if not service.route and service.variable not in used:
            stack.remove("processes", "router", "depends_on", name)
    stack.add_blocks(
        "processes", lambda service: render.block(PROCESS_COMPOSE, {"service": service})
    )
    for name, service in PYTHON.items():
        description = json.dumps(service.description)
        stack.replace("processes", name, "description", value=description)
        started, ready = "{condition: process_started}", "{condition: process_log_ready}"
        stack.put("processes", "ready", "depends_on", name, value=ready)
        if service.route:
            stack.put("processes", "router", "depends_on", name, value=started)
    return stack.text


def caddyfile(text: str) -> str:
    """Updates the router's configuration, which has a line for each route; a new one comes last."""
    missing = {service.variable: service.route for service in SERVICES.values() if service.route}
    lines, end = [], -1
    for line in text.splitlines(keepends=True):
        if found := routes(line):
            [(former, variable)] = found
            if route := missing.pop(variable, None):
                lines.append(
                    re.sub(
                        rf"(service\s+){re.escape(former)}(?=\s)", rf"\g<1>{route}", line, count=1
                    )
                )
            if line.startswith(_INDENT):
                end = len(lines)
        else:
            lines.append(line)
    if end < 0:
        raise LookupError("no line `import service`")
    lines[end:end] = [_route(*item) for item in missing.items()]
    return "".join(lines)


def _route(variable: str, route: str) -> str:
    address = f"{{${variable}_ADDRESS:127.0.0.1:{variable}_ADDRESS-is-not-set}}"
    return f"{_INDENT} {route} {address}\n"


MAKERS: Mapping[str, Callable[[str], str]] = {
    CADDYFILE: caddyfile,  # first: the stacks connect the router to what it refers to
    PROCESS_COMPOSE: processes,
    CONTAINERS: containers.updated,
    PAGE: settings.updated,
    EXAMPLE: lambda _: settings.example(),
    INHERITED: lambda _: settings.variables(),
}
"""For each derived file, computes its new text from the current one."""


def main(root: Path) -> None:
    """Rewrites the derived files below `root`."""
    if faults := settings.FAULTS + clashes(DEFAULT_PORT, {}):
        sys.exit("; ".join(faults))
    for name, make in MAKERS.items():
        path = root / name
        before = path.read_text("utf-8")
        if marker := re.search(r"^(?:(?:<{7}|>{7}) .*|={7}$)", before, re.MULTILINE):
            sys.exit(f"{name}: resolve the conflict {marker[0]!r} first")
        try:
            path.write_text(make(before), "utf-8")
        except (LookupError, MarkedYAMLError, TypeError, AttributeError) as error:
            sys.exit(f"{name}: {_fault(error)}")


def _fault(error: Exception) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        problem = str(error.problem).partition(" with value")[0]  # a whole block
        return f"line {error.problem_mark.line + 1}: {problem}"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return " ".join(str(error).split())


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2])
