"""Processes whose supervisor was killed are found and ended; no others."""

import contextlib
import os
import socket
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from devtools import processes
from devtools.catalog import REDIS_NODES
from tests.devtools.conftest import WAIT, python
from tests.support import call, free_ports, wait_until

MARKS = {"PC_PROC_NAME": "core-api", "PC_REPLICA_NUM": "0"}


def found(state: Path) -> dict[int, str]:
    return {orphan.process.pid: orphan.name for orphan in processes.orphans(state)}


def supervised(state: Path) -> list[str]:
    """A command that runs another as process-compose does, as a process of the stack."""
    supervisor = state / "process-compose"
    supervisor.write_text('#!/bin/sh\n"$@"\n:\n')
    marks = [f"{name}={value}" for name, value in (MARKS | {"PLATFORM_STATE": state}).items()]
    return ["sh", str(supervisor), "env", *marks]


def test_only_orphans_of_this_stack_are_found(tmp_path: Path) -> None:
    """By any path of the folder; not another stack's, a shell's, or unknown names.

    A service of the branch from which the stack was started is known.
    """
    ours, other = str(tmp_path / "ours"), str(tmp_path / "other")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/environment").write_text("GONE_API_PORT=8008\n")
    (tmp_path / "link").symlink_to("ours")
    with (
        python(WAIT, PLATFORM_STATE=ours, **MARKS) as orphan,
        python(WAIT, PLATFORM_STATE=str(tmp_path / "link"), **MARKS) as linked,
        python(WAIT, PLATFORM_STATE=os.path.relpath(ours), **MARKS) as relative,
        python(WAIT, PLATFORM_STATE=other, **MARKS) as of_other,
        python(WAIT, PLATFORM_STATE=ours, PC_PROC_NAME="gone-api") as of_branch,
        python(WAIT, PLATFORM_STATE=ours),
        python(WAIT, PLATFORM_STATE=ours, PC_PROC_NAME="tmux"),
        python(WAIT, **MARKS),
        contextlib.chdir(tmp_path),
        python(WAIT, **MARKS),
    ):
        pids = {one.pid for one in (orphan, linked, relative, of_branch)}
        assert set(found(tmp_path / "ours")) == pids
        assert found(tmp_path / "other") == {of_other.pid: "core-api"}
        assert found(tmp_path / ".state") == {}


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_listener_at_ipv6_does_not_hide_that_of_a_service() -> None:
    """At the same port of [::1] another program may listen."""
    first = free_ports(8)
    ports = {str(port): port for port in range(first, first + 8)}
    code = (
        "import socket; "
        f"held = [socket.create_server(('127.0.0.1', {first} + n)) for n in range(8)]; {WAIT}"
    )
    with python(code) as service, contextlib.ExitStack() as others:
        for port in ports.values():
            others.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
        found = processes.holders(ports, {})
    assert {holder.pid for holder in found.values()} == {service.pid}


@pytest.mark.parametrize("is_ours", [True, False])
def test_another_projects_supervisor_is_not_ours(tmp_path: Path, is_ours: bool) -> None:  # noqa: FBT001
    """`platform down` ends no process-compose that our shell only started with another project."""
    more = {"PC_SOCKET_PATH": "pc.sock", "PC_CONFIG_FILES": "pc.yaml"} if is_ours else {}
    with python(WAIT, *supervised(tmp_path), **more) as process:
        pids = [head.pid for head in processes.supervisors(tmp_path)]
        assert pids == ([process.pid] if is_ours else [])
        for child in psutil.Process(process.pid).children():
            child.kill()


def test_a_supervised_process_is_no_orphan(tmp_path: Path) -> None:
    """It becomes one when its process-compose is killed; before, no other stack may start."""
    with python(WAIT, *supervised(tmp_path)) as process:
        [child] = psutil.Process(process.pid).children()
        assert found(tmp_path) == {}
        [rival] = processes.conflicting_stacks(tmp_path)
        assert f"(core-api, pid {child.pid})" in rival
        assert rival.endswith(f"kill {process.pid}")
        process.kill()
        process.wait(10)
        wait_until(lambda: found(tmp_path) == {child.pid: "core-api"}, what="the orphan")
        assert processes.conflicting_stacks(tmp_path) == []
        child.kill()


def test_another_users_stack_is_a_rival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root sees it, even when it is unsupervised, and must not end it as an orphan."""
    with python(WAIT, PLATFORM_STATE=str(tmp_path), **MARKS) as process:
        monkeypatch.setattr(os, "getuid", lambda: 12_345)
        assert found(tmp_path) == {}
        [rival] = processes.conflicting_stacks(tmp_path)
        assert rival.endswith(f"kill {process.pid}")


def test_a_stranger_s_process_is_in_no_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any environment; root's commands would take settings from it."""
    state = tmp_path / "missing"
    with python(WAIT, PLATFORM_STATE=str(state), **MARKS):
        assert processes.conflicting_stacks(state) == []
        assert found(state)
        monkeypatch.setattr(os, "getuid", lambda: 12_345)
        assert (found(state), processes.conflicting_stacks(state)) == ({}, [])


def test_it_does_not_find_itself(tmp_path: Path) -> None:
    """Preflight and a shell above it have the same marks."""
    code = "subprocess.run([sys.executable, '-m', 'devtools.processes']); print('still up')"
    command = [sys.executable, "-c", f"import subprocess, sys; {code}"]
    done = call(command, os.environ | {"PLATFORM_STATE": str(tmp_path)} | MARKS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still up\n", "")


@pytest.mark.parametrize("name", ["uids", "status", "environ", "cwd", "ppid", "parents"])
def test_a_process_may_end_at_each_inspection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is not an orphan then, and nothing is raised."""

    def gone(process: psutil.Process, *_args: object) -> None:
        raise psutil.NoSuchProcess(process.pid)

    with python(WAIT, PLATFORM_STATE=os.path.relpath(tmp_path), **MARKS) as orphan:
        process = psutil.Process(orphan.pid)
        monkeypatch.setattr(psutil, "process_iter", lambda: [process])
        monkeypatch.setattr(process, name, partial(gone, process))
        assert found(tmp_path) == {}


@pytest.mark.parametrize(("name", "ignores"), [("core-api", False), ("redis", True)])
def test_they_are_ended_with_their_children_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, ignores: bool
) -> None:
    """SIGTERM also ends a worker without the marks; a process that ignores it gets SIGKILL."""
    monkeypatch.setattr(processes, "_REDIS_STOP_SECONDS_MAX", 0.1)
    worker = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], env={}); "
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if ignores else ""
    with python(worker + ignore + WAIT, PLATFORM_STATE=str(tmp_path), PC_PROC_NAME=name) as orphan:
        [child] = psutil.Process(orphan.pid).children()
        message, faults = processes.end_orphans(tmp_path)
        assert message.endswith(f"by a killed supervisor: {name}, pid {orphan.pid}")
        assert faults == []
        assert orphan.wait(10) == (-9 if ignores else -15)
        wait_until(lambda: processes.is_gone(child), seconds_max=20, what="the worker's end")
    assert processes.end_orphans(tmp_path) == ("", [])


def test_redis_is_ended_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its nodes, once the others have written what they hold."""
    groups: list[list[int]] = []
    monkeypatch.setattr(processes, "_end", lambda group, _: groups.append([p.pid for p in group]))
    state = str(tmp_path)
    with (
        python(WAIT, PLATFORM_STATE=state, PC_PROC_NAME=REDIS_NODES[-1]) as node,
        python(WAIT, PLATFORM_STATE=state, PC_PROC_NAME="redis-cluster") as job,
    ):
        processes.end_orphans(tmp_path)
        assert groups == [[job.pid], [node.pid]]
