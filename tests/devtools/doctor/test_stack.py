"""The doctor's checks of a running stack: ports, health, Redis."""

import os
import socket
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devtools import preflight, processes
from devtools.address import CLUSTER_BLOCK
from devtools.catalog import CONSOLE, LISTENERS, SERVICES
from devtools.doctor import stack
from devtools.new import unsynced
from devtools.supervisor import ProcessState
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector.breaker import FAILURES_MAX
from tests.devtools.conftest import WAIT, one, python, running, wrong
from tests.support import free_ports, service, wait_until


def listening(environ: dict[str, str], state: Path, name: str, *, process: str = "") -> Any:
    """A process of the stack that listens on its own port, or on that of `name`."""
    port = SERVICES[name].port(int(environ["PLATFORM_PORT"]))
    code = f"import socket; server = socket.create_server(('127.0.0.1', {port})); {WAIT}"
    return python(code, PLATFORM_STATE=str(state), PC_PROC_NAME=process or name)


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> list[ProcessState]:
    """The processes that the supervisor of the running stack lists."""
    states: list[ProcessState] = []
    listed = SimpleNamespace(processes=lambda: states)
    monkeypatch.setattr(stack, "Supervisor", lambda _path: listed)
    monkeypatch.setattr(processes, "orphans", lambda _state: [])
    return states


RUNNING = ProcessState("router", "Running", 0, True, True, 0, 0, None, None)
ENDED = replace(RUNNING, status="Completed", is_running=False, is_ready=False)


@pytest.mark.parametrize("name", ["core-api", "redis", "console"])
def test_a_port_in_use_is_reported_with_its_holder(environ: dict[str, str], name: str) -> None:
    """One finding has name, pid, and a free block of ports, as in preflight; CONSOLE=off has none.

    The stack is down, so neither the holder's health nor its data are checked.
    """
    port = LISTENERS[name].port(int(environ["PLATFORM_PORT"]))
    with socket.create_server(("127.0.0.1", port)):
        found = running(environ)
        [fault] = wrong([*found.ports(), *found.health(), *found.redis()])
        [line] = preflight.busy_ports(int(environ["PLATFORM_PORT"]), Path(), environ)
        without = running(environ, CONSOLE="off").ports()
    assert fault.name == name
    assert f"({name}) is held by" in line
    assert f"pid {os.getpid()}" in fault.note
    assert "end it, or start with PLATFORM_PORT=" in fault.remedy
    assert one(found.ports(), "router").note == "free"
    assert CONSOLE.name not in {item.name for item in without}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_a_port_in_use_at_another_address_is_reported_with_http_host_0_0_0_0(
    environ: dict[str, str],
) -> None:
    """As in preflight; at 127.0.0.1 the port is free."""
    with socket.create_server(("127.0.0.2", int(environ["PLATFORM_PORT"]))):
        [fault] = wrong(running(environ, HTTP_HOST="0.0.0.0").ports())
        assert wrong(running(environ).ports()) == []
    assert (fault.name, f"pid {os.getpid()}" in fault.note) == ("router", True)
    assert "end it, or start with PLATFORM_PORT=" in fault.remedy


def test_a_process_of_the_stack_that_stops_or_hangs_is_a_fault(
    environ: dict[str, str], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the console, unless the stack was started without it."""
    monkeypatch.setattr(stack, "_RESPONSE_SECONDS_MAX", 0.2)
    monkeypatch.setattr(processes, "orphans", lambda _state: [])  # as if it had a supervisor
    with listening(environ, checkout / ".state", "router"):
        found = running(environ)
        [health] = found.health()
        stopped = {item.name for item in wrong(found.ports())}
    assert (health.name, health.value, health.status) == ("router", "no response", "fault")
    assert stopped == LISTENERS.keys() - {"router"}
    monkeypatch.setattr(processes, "running_environ", lambda _state: {"CONSOLE": "off"})
    with listening(environ, checkout / ".state", "router"):
        assert one(running(environ).ports(), "console").note == "the stack was started without it"


def test_a_port_without_a_listener_is_explained_by_its_process(
    environ: dict[str, str], checkout: Path, supervised: list[ProcessState]
) -> None:
    """It may start, as the console does after `up -D`, have ended, or be newer than the stack."""
    supervised += [
        replace(RUNNING, name="psp-sandbox"),
        replace(RUNNING, name="console", is_ready=False),
        replace(ENDED, name="core-api-0"),
        replace(ENDED, name="core-api-1"),
    ]
    with listening(environ, checkout / ".state", "router"):
        checks = running(environ)
        with listening(environ, checkout / ".state", "psp-sandbox"):  # it became ready meanwhile
            found = checks.ports()
    assert one(found, "psp-sandbox").status == "ok"
    console = one(found, "console")
    assert (console.status, console.note) == ("warning", "starting")
    assert one(found, "core-api").remedy.endswith("; platform process start core-api-0")
    assert one(found, "auth-api").remedy == "`platform down`, then `platform up -D`"


def test_a_part_of_the_stack_has_no_faults(
    environ: dict[str, str], checkout: Path, supervised: list[ProcessState]
) -> None:
    """`platform up -D redis` disables the others, which is not a fault."""
    disabled = replace(ENDED, status="Disabled")
    supervised += [replace(RUNNING, name="redis")]
    supervised += [replace(disabled, name=name) for name in LISTENERS if name != "redis"]
    with listening(environ, checkout / ".state", "redis"):
        found = running(environ)
        assert wrong(found.ports()) == found.health() == []


def test_a_failed_process_is_a_fault_once(
    environ: dict[str, str], checkout: Path, supervised: list[ProcessState]
) -> None:
    """Also a replica, whose port is not listed, and one whose port another process took.

    The health check at that port is the other's. A job that failed, such as `ready`, is past.
    """
    failed = replace(ENDED, status="Restarting", exit_code=1, restarts=8)
    names = ("auth-api", "redis-1", "core-api-1", "ready", "smoke", "reload")
    supervised += [replace(failed, name="psp-sandbox")]
    supervised += [RUNNING, *(replace(failed, name=name) for name in names)]
    with listening(environ, checkout / ".state", "auth-api", process="router"):
        found = running(environ)
        faults = {item.name: item for item in wrong(found.ports())}
        health = found.health()
    assert faults.keys() & names == {"auth-api", "redis-1", "core-api-1", "reload"}
    assert faults["auth-api"].note.startswith("held by router of this stack")
    assert (faults["redis-1"].value, faults["redis-1"].note) == (
        "Restarting",
        "exit code 1, 8 restarts",
    )
    assert "logs/redis-1.log" in faults["redis-1"].remedy
    assert "logs/core-api.log.1" in faults["core-api-1"].remedy
    assert health == []
    assert faults["psp-sandbox"].note == "not listening: Restarting, 8 restarts"
    assert faults["psp-sandbox"].remedy.endswith("/psp-sandbox.log"), "it is started already"


@pytest.mark.parametrize("exit_code", [0, -1], ids=["ended", "killed"])
def test_a_service_that_was_stopped_and_is_debugged_is_a_warning(
    environ: dict[str, str], checkout: Path, supervised: list[ProcessState], exit_code: int
) -> None:
    """Also if the supervisor had restarted it before; a `reload` that was stopped is a fault."""
    port = SERVICES["core-api"].port(int(environ["PLATFORM_PORT"]))
    supervised += [RUNNING, replace(ENDED, name="core-api", exit_code=exit_code, restarts=6)]
    supervised += [replace(ENDED, name="reload", exit_code=-1)]
    with (
        listening(environ, checkout / ".state", "router"),
        socket.create_server(("127.0.0.1", port)),
    ):
        found = running(environ).ports()
    warning = one(found, "core-api")
    assert (warning.status, "started by you instead?" in warning.note) == ("warning", True)
    assert one(found, "reload").remedy.endswith("; platform process start reload")


def test_a_process_that_ends_again_and_again_is_a_fault(
    environ: dict[str, str], checkout: Path, supervised: list[ProcessState]
) -> None:
    """Also if it has just been started when doctor looks."""
    names = "auth-api", "core-api", "reload"
    starting = [replace(RUNNING, name=name, is_ready=False, restarts=3) for name in names]
    supervised += [RUNNING, *starting]
    later = [
        replace(starting[0], is_ready=True),
        *(replace(one, restarts=4) for one in starting[1:]),
    ]
    with listening(environ, checkout / ".state", "router"):
        found = running(environ)
        threading.Timer(0.5, partial(supervised.__setitem__, slice(1, None), later)).start()
        faults = {item.name for item in found.ports() if item.status == "fault"}
    assert faults & set(names) == {"core-api", "reload"}


def test_a_process_that_crashes_slowly_is_a_fault(
    environ: dict[str, str], checkout: Path, supervised: list[ProcessState]
) -> None:
    """As a replica whose port is in use; not one that starts once more, or has no ready line."""
    restarts = {"auth-api": 1, "core-api": 2, "core-api-1": 2, "reload": 2}
    starting = replace(RUNNING, is_ready=False)
    supervised += [RUNNING]
    supervised += [replace(starting, name=name, restarts=n) for name, n in restarts.items()]
    with listening(environ, checkout / ".state", "router"):
        faults = {item.name for item in running(environ).ports() if item.status == "fault"}
    assert faults & restarts.keys() == {"core-api", "core-api-1"}


def test_a_process_that_the_code_no_longer_has_is_named(
    environ: dict[str, str],
    checkout: Path,
    supervised: list[ProcessState],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after `git checkout` of a branch without the service: its next restart fails.

    A process that was added by hand is in the code.
    """
    monkeypatch.setattr(unsynced, "own_processes", lambda: {"mine-2"})
    supervised += [replace(RUNNING, name="mine-2")]
    gone = replace(RUNNING, name="mailer-1")
    supervised += [RUNNING, gone]
    supervised += [replace(gone, name="rates-api", status="Restarting", is_running=False)]
    supervised += [replace(ENDED, name="stopped", exit_code=-1)]
    with listening(environ, checkout / ".state", "router"):
        found = {one.name: (one.status, one.remedy) for one in running(environ).ports()}
    remedy = "`platform down`, then `platform up -D`"
    assert found["mailer-1"] == found["stopped"] == ("warning", remedy)
    assert found["rates-api"] == ("fault", remedy)
    assert "mine-2" not in found


def test_a_stopped_node_is_a_fault_once(
    environ: dict[str, str], checkout: Path, supervised: list[ProcessState]
) -> None:
    """Its bus has the node's log, and is not counted."""
    environ |= {"PLATFORM_PORT": str(free_ports(CLUSTER_BLOCK))}
    (checkout / ".state").mkdir()
    (checkout / ".state/environment").write_text("export REDIS_CLUSTER=1\n")
    supervised += [RUNNING, replace(ENDED, name="redis-2")]
    with listening(environ, checkout / ".state", "router"):
        found = [item for item in running(environ).ports() if item.name.startswith("redis-2")]
    assert [(item.name, item.status) for item in found] == [
        ("redis-2", "fault"),
        ("redis-2 bus", "ok"),
    ]
    assert "logs/redis-2.log" in found[0].remedy


def test_data_of_another_number_of_partitions_are_reported_before_the_start(
    environ: dict[str, str], checkout: Path
) -> None:
    """While Redis is down, as preflight would."""
    made = checkout / ".state/redis/appendonlydir"
    made.mkdir(parents=True)
    (made / "appendonly.aof.1.incr.aof").write_bytes(bytes(1000))
    (checkout / ".state/partitions").write_text("1")
    [fault] = wrong(running(environ, PARTITIONS="4").redis())
    assert "have 1; set PARTITIONS=1" in fault.name


def test_a_port_that_is_only_bound_may_be_our_own(environ: dict[str, str]) -> None:
    """Its process cannot be found, so it is not said to be another user's."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", SERVICES["core-api"].port(int(environ["PLATFORM_PORT"]))))
        [fault] = wrong(running(environ).ports())
    assert "or one that does not listen on it yet" in fault.note


def test_a_psp_that_is_unavailable_is_reported(
    client: Any, redis_port: int, environ: dict[str, str], tmp_path: Path
) -> None:
    """Charging is paused, perhaps because of the proxy through which a PSP elsewhere is called."""
    transactions = Transactions(client, 100)
    for _ in range(FAILURES_MAX):
        transactions.accept(1, TransactionRequest(amount=1, currency="USD"), "", None)
    port = str(SERVICES["psp-connector"].port(int(environ["PLATFORM_PORT"])))
    more = {"HTTP_PORT": port, "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"}
    with service("psp_connector", tmp_path, **more):
        wait_until(lambda: running(environ).psp(), what="the doctor's finding")
        [fault] = running(environ, http_proxy="http://proxy:1").psp()
        [elsewhere] = running(environ, PSP_URL="http://a", HTTP_PROXY="http://proxy:1").psp()
    assert (fault.status, fault.note) == ("fault", "charging is paused")
    assert "PROXY" not in fault.remedy
    assert elsewhere.remedy.startswith("are PSP_URL, PSP_API_KEY, HTTP_PROXY right?")


def test_an_orphan_is_reported_with_its_pid(environ: dict[str, str], checkout: Path) -> None:
    """An orphan has our state folder and no supervisor; preflight reports it as ours, too."""
    port, state = int(environ["PLATFORM_PORT"]), checkout / ".state"
    with listening(environ, state, "router") as orphan:
        checks = running(environ)
        [item] = checks.left_behind()
        router = one(checks.ports(), "router")
        [fault] = preflight.busy_ports(port, state, environ)
    assert router.note == f"ours: python, pid {orphan.pid}"
    assert (item.status, item.value) == ("fault", f"router, pid {orphan.pid}")
    assert "`platform down` ends them" in item.remedy
    assert "a stack of this checkout is running" in fault
    assert f"kill {orphan.pid}" in fault
