"""The layers, and that facts about a service are only in its service.toml."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools import environment
from devtools.catalog import ALL_PROCESSES, CONSOLE, REDIS_NODES, SERVICES
from devtools.settings import SETTINGS
from tests.support import ROOT, call

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "process-compose.yaml").read_text())
PROCESSES: dict[str, Any] = COMPOSE["processes"]
CLUSTER = yaml.safe_load((ROOT / "process-compose.cluster.yaml").read_text())["processes"]
LAYERS = ("services", "devtools", "bench", "tests")
"""A layer imports itself and those before it; only the benchmark also imports tests' helpers."""
PACKAGES = {service.folder for service in SERVICES.values() if service.packages}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """The dotted names of what these statements import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    """The dotted names of our modules that a module imports, anywhere in it."""
    return {name for name in imports(ast.walk(tree(path))) if name.split(".")[0] in LAYERS}


@pytest.mark.parametrize("layer", LAYERS[:-2])
def test_imports_point_downwards(layer: str) -> None:
    """Services import no tools, and tools import neither the benchmark nor tests."""
    below = set(LAYERS[: LAYERS.index(layer) + 1])
    for path in (ROOT / layer).rglob("*.py"):
        assert {name.split(".")[0] for name in ours(path)} <= below, path


@pytest.mark.parametrize("folder", sorted(PACKAGES | {"common"}))
def test_a_service_imports_only_itself_and_common(folder: str) -> None:
    """Each service can be removed, and shared code does not depend on services."""
    for path in (ROOT / "services" / folder).rglob("*.py"):
        assert {name.split(".")[1] for name in ours(path)} <= {folder, "common"}, path


def test_there_are_no_circular_imports() -> None:
    """Imports at the top level of modules have no cycle."""
    graph = {}
    for layer in LAYERS[:-1]:
        for path in (ROOT / layer).rglob("*.py"):
            name = str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
            graph[name.removesuffix(".__init__")] = imports(tree(path).body)
    graph = {name: {m for one in found for m in (one, one.rpartition(".")[0]) if m in graph}
             for name, found in graph.items()}  # fmt: skip
    while leaves := {name for name, needed in graph.items() if not needed}:
        graph = {name: needed - leaves for name, needed in graph.items() if name not in leaves}
    assert graph == {}


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run, so without `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from run_nodes(child)


def third_party(folder: str) -> set[str]:
    """External imports of a folder, and of the shared modules it imports."""
    waiting, seen, found = set((ROOT / "services" / folder).rglob("*.py")), set(), set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for name in imports(run_nodes(tree(path))):
            first, _, rest = name.partition(".")
            shared = ROOT / "services" / f"{'/'.join(rest.split('.')[:2])}.py"
            if first == "services" and rest.startswith("common.") and shared.exists():
                waiting |= {shared} - seen
            elif first != "services":
                found.add(first)
    return found - sys.stdlib_module_names


def distributions(names: set[str]) -> set[str]:
    """The packages of these modules, with nixpkgs' spelling."""
    brought_by = importlib.metadata.packages_distributions()
    found = {package.lower().replace("_", "-") for name in names for package in brought_by[name]}
    # redis-py imports it by itself, where it is there, and is faster then.
    return found | {"hiredis"} if "redis" in found else found


@pytest.mark.parametrize("folder", sorted(PACKAGES))
def test_a_folder_has_the_packages_it_imports(folder: str) -> None:
    """Each service.toml lists exactly the imported packages."""
    listed = SERVICES[folder.replace("_", "-")].packages
    assert distributions(third_party(folder)) == set(listed)


def test_each_service_is_a_process() -> None:
    """A folder with a service.toml, and the console, is a process with a ready line."""
    ready = {name for name, process in PROCESSES.items() if "ready_log_line" in process}
    assert ready == {*SERVICES, CONSOLE.name}
    folders = {path.parent.name for path in (ROOT / "services").glob("*/[!_]*")}
    assert folders - {"common", "__pycache__"} == {service.folder for service in SERVICES.values()}


def test_the_catalog_names_every_process() -> None:
    """A process that it does not name would survive a killed supervisor."""
    assert {*PROCESSES, *CLUSTER} == ALL_PROCESSES


@pytest.mark.parametrize(
    ("restart", "names"),
    [("always", {*SERVICES, *REDIS_NODES}), ("on_failure", {CONSOLE.name, "reload"})],
)
def test_a_process_that_ended_is_restarted_without_a_limit(restart: str, names: set[str]) -> None:
    """A syntax error of some minutes would use one up, and the mended code would not start.

    The console and reload end by themselves if they are switched off.
    """
    found = {name: one.get("availability") for name, one in {**CLUSTER, **PROCESSES}.items()}
    policy = {"restart": restart, "backoff_seconds": 1}
    assert {name for name, one in found.items() if one == policy} == names


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_process_matches_its_service_toml(name: str) -> None:
    """Port, module, stop time and dependencies match; the description is derived."""
    service, process = SERVICES[name], PROCESSES[name]
    command = process["command"] + (ROOT / "services/router/run.sh").read_text()
    assert f"{service.variable}_PORT" in command
    if service.packages:
        assert process["command"].strip().endswith(f"exec python -m services.{service.folder}")
        assert process["shutdown"]["timeout_seconds"] == service.stop_seconds
    waited_for = process["depends_on"]
    for needed in service.needs:
        assert waited_for[needed] == {"condition": "process_log_ready"}


def test_no_two_services_share_a_port_or_a_route() -> None:
    """Offsets and routes are unique."""
    offsets = [service.port_offset for service in SERVICES.values()]
    routes = [service.route for service in SERVICES.values() if service.route]
    assert (len(set(offsets)), len(set(routes))) == (len(offsets), len(routes))


@pytest.mark.parametrize("environ", [{}, {"REDIS_URL": "rediss://r", "PSP_URL": "https://p"}])
@pytest.mark.parametrize("service", sorted(SETTINGS))
def test_a_service_gets_the_variables_that_preflight_checks(
    tmp_path: Path, service: str, environ: dict[str, str]
) -> None:
    """The sourced file gives the same variables as `environment`."""
    (tmp_path / "environment").write_text(environment.script(9000, tmp_path, environ))
    done = call(["sh", "-euc", '. "$0/environment" && env', str(tmp_path)], environ)
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
    port = seen[f"{SERVICES[service].variable}_PORT"]
    expected = environment.environment(service, 9000, tmp_path, environ)
    assert {name: (seen | {"HTTP_PORT": port}).get(name) for name in expected} == expected


@pytest.mark.parametrize("name", list(PROCESSES))
def test_every_process_is_bounded(name: str) -> None:
    """Each has a stop timeout, its own log, and starts its program with exec."""
    process = PROCESSES[name]
    assert 0 < process["shutdown"]["timeout_seconds"] <= 6
    assert process["log_location"].endswith(f"/logs/{name}.log")
    assert "exec " in process["command"]
    assert "readiness_probe" not in process, "process-compose does not end a running probe"
    conditions = {"process_started", "process_log_ready", "process_completed"}
    conditions.add("process_completed_successfully")
    needs = process.get("depends_on", {})
    for needed in needs.values():
        assert needed["condition"] in conditions
    # A refused start skips what it depends on, which may then count as started or completed.
    assert name == "preflight" or needs["preflight"]["condition"].endswith("successfully")


def test_functions_and_files_are_short() -> None:
    """A function has at most 40 lines, so that it fits on a screen, and a file 300."""
    paths = [path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")]
    long = [
        (path.name, node.name)
        for path in paths
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > 40
    ]
    long += [(path.name, "") for path in paths if path.read_text().count("\n") > 300]
    assert long == []
