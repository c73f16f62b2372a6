"""The folders, the processes, the ports and the settings are the same set, said once each."""

from __future__ import annotations

import ast
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.preflight import plan
from tests.support import ROOT

SERVICES = ROOT / "services"
FOLDERS = {path.name for path in SERVICES.iterdir() if path.is_dir() and path.name[0] != "_"}
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "process-compose.yaml").read_text())
PROCESSES: dict[str, Any] = COMPOSE["processes"]


def folder_of(command: str) -> str:
    """The folder under services/ that a process's command runs."""
    found: list[str] = re.findall(r"services[./](\w+)", command)
    assert found, command
    return found[-1]  # before it may stand what starts it


def test_each_folder_is_a_process_and_the_other_way_round() -> None:
    """A folder under services/ is what a process runs; nothing lies there unused."""
    run = {folder_of(process["command"]) for process in PROCESSES.values()}
    assert FOLDERS == run


def test_the_plan_has_the_ports_of_the_compose_file() -> None:
    """Preflight checks exactly the ports that the processes will listen on."""
    offsets = {}
    for name, process in PROCESSES.items():
        probe = process.get("readiness_probe", {}).get("exec", {}).get("command", "")
        found = re.search(r"PLATFORM_PORT:-8000}(?: \+ (\d))?", probe)
        if found:
            offsets[name] = int(found[1] or 0)
    assert plan.PORT_OFFSETS == offsets


@pytest.mark.parametrize("service", list(plan.SETTINGS))
def test_the_plan_gives_what_the_compose_file_gives(service: str) -> None:
    """Each variable the command exports is one that preflight checks with."""
    exported = set(re.findall(r"\b([A-Z_]+)=", PROCESSES[service]["command"]))
    given = set(plan.environment(service, 8000, Path("/s"), {}))
    assert exported - {"SANDBOX_DATABASE"} <= given
    port = plan.environment(service, 8000, Path("/s"), {})["HTTP_PORT"]
    assert f"PLATFORM_PORT + {int(port) - 8000}" in PROCESSES[service]["command"]


@pytest.mark.parametrize("name", list(PROCESSES))
def test_every_process_is_bounded(name: str) -> None:
    """Each can be killed, keeps a log of its own, and starts its program with exec."""
    process = PROCESSES[name]
    assert 0 < process["shutdown"]["timeout_seconds"] <= 6
    assert process["log_location"].endswith(f"/logs/{name}.log")
    assert "exec " in process["command"]
    for needed in process.get("depends_on", {}).values():
        assert needed["condition"] in {"process_healthy", "process_completed_successfully"}


def test_the_log_files_are_not_silenced() -> None:
    """process-compose takes standard output for level info: with `warn` no log file has a line."""
    assert COMPOSE["log_level"] in {"trace", "debug", "info"}


def imports(path: Path) -> set[str]:
    """The folders under services/ that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("services.")}
    return found & FOLDERS


@pytest.mark.parametrize("folder", sorted(FOLDERS - {"preflight"}))
def test_no_service_imports_another(folder: str) -> None:
    """Each can be cut out of here: only the shared modules are imported.

    Preflight is the stack's own, and reads the settings of all.
    """
    for path in (SERVICES / folder).rglob("*.py"):
        assert imports(path) <= {folder}, path


def test_shared_modules_import_no_service() -> None:
    """What is shared knows nothing of who uses it."""
    for path in SERVICES.glob("*.py"):
        assert set() == imports(path), path


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and length in lines of each function of a module."""
    tree = ast.parse(path.read_text())
    return [
        (node.name, (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_functions_are_short() -> None:
    """40 lines at the most, so that each fits on a screen."""
    long = [
        (path.name, name, lines)
        for path in SERVICES.rglob("*.py")
        for name, lines in functions(path)
        if lines > 40
    ]
    assert [] == long


def test_scripts_can_be_run() -> None:
    """What is meant to be typed has its executable bit."""
    for name in ("nixw", ".ci/run"):
        assert (ROOT / name).stat().st_mode & stat.S_IXUSR, name
