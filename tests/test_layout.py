"""The folders, the processes, the ports and the settings are the same set, said once each."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devtools import environment as plan
from devtools.address import PORT_OFFSETS
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

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
    assert FOLDERS - {"lnav"} == run  # the format of our logs, for the command `logs`


def test_the_plan_has_the_ports_of_the_compose_file() -> None:
    """Preflight checks exactly the ports that the processes will listen on."""
    listening = {name for name, process in PROCESSES.items() if "ready_log_line" in process}
    assert listening == set(PORT_OFFSETS)
    for name in listening:
        assert f"${variable(name)}" in PROCESSES[name]["command"]


def test_the_plan_has_the_settings_of_each_service() -> None:
    """Preflight checks the settings of each service."""
    services = {
        name for name, process in PROCESSES.items() if process.get("namespace") == "services"
    }
    assert services == set(plan.SETTINGS)


def test_each_description_can_be_read() -> None:
    """process-compose's screen shows 17 characters of it at 120 columns; a port has up to 5."""
    shown = {
        p["description"].replace("${PLATFORM_PORT:-8000}", "65535") for p in PROCESSES.values()
    }
    assert {text for text in shown if len(text) > 17} == set()


def variable(process: str) -> str:
    """What services/environment.sh calls the port of a process."""
    return process.upper().replace("-", "_") + "_PORT"


@pytest.mark.parametrize("replica", ["", "0", "2"])
def test_the_shell_says_the_same_ports_as_python(tmp_path: Path, replica: str) -> None:
    """The number that preflight wrote down counts, whatever PLATFORM_PORT says."""
    environ = {"PLATFORM_PORT": "auto", "PC_REPLICA_NUM": replica}
    given = environment(tmp_path, 9000, environ)
    ports = {name: 9000 + offset for name, offset in PORT_OFFSETS.items()}
    ports["psp-connector"] += 10 * int(replica or 0)
    assert "9000" == given["PLATFORM_PORT"]
    assert ports == {name: int(given[variable(name)]) for name in PORT_OFFSETS}


@pytest.mark.parametrize("own", [{}, {"REDIS_URL": "rediss://r", "PSP_URL": "https://p"}])
@pytest.mark.parametrize("service", list(plan.SETTINGS))
def test_the_plan_gives_what_the_shell_gives(
    tmp_path: Path, service: str, own: dict[str, str]
) -> None:
    """Preflight checks with the very values that the processes will get."""
    given = environment(tmp_path, 9000, own)
    for name, value in plan.environment(service, 9000, tmp_path, own).items():
        source = variable(service) if name == "HTTP_PORT" else name
        assert value == given[source], name
    exported = set(re.findall(r"\b([A-Z_]+)=", PROCESSES[service]["command"]))
    assert exported <= {*plan.SET_BY_THE_STACK}


def environment(state: Path, port: int, environ: dict[str, str]) -> dict[str, str]:
    """What services/environment.sh makes of these variables."""
    (state / "port").write_text(f"{port}\n")
    done = subprocess.run(
        ["sh", "-euc", ". services/environment.sh && env"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PLATFORM_STATE": str(state)} | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", list(PROCESSES))
def test_every_process_is_bounded(name: str) -> None:
    """Each can be killed, keeps a log of its own, and starts its program with exec."""
    process = PROCESSES[name]
    assert 0 < process["shutdown"]["timeout_seconds"] <= 6
    assert process["log_location"].endswith(f"/logs/{name}.log")
    assert "exec " in process["command"]
    assert "readiness_probe" not in process, "process-compose does not end a running probe"
    conditions = {"process_started", "process_log_ready", "process_completed_successfully"}
    conditions |= {"process_completed"}
    for needed in process.get("depends_on", {}).values():
        assert needed["condition"] in conditions


@pytest.mark.parametrize("name", ["ready", "smoke"])
def test_what_tells_of_a_healthy_stack_waits_for_all_of_it(name: str) -> None:
    """Neither begins before each process is ready, but for Redis, which others wait for."""
    listening = {other for other, process in PROCESSES.items() if "ready_log_line" in process}
    ready = {other: {"condition": "process_log_ready"} for other in listening - {"redis"}}
    assert PROCESSES[name]["depends_on"] == ready


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
        for folder in (SERVICES, ROOT / "bench")
        for path in folder.rglob("*.py")
        for name, lines in functions(path)
        if lines > 40
    ]
    assert [] == long


def test_scripts_can_be_run() -> None:
    """What is meant to be typed has its executable bit."""
    for name in ("nixw", ".ci/run"):
        assert (ROOT / name).stat().st_mode & stat.S_IXUSR, name
