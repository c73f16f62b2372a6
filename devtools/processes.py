"""The stack's processes: its supervisor, the listeners on its ports, and orphans.

Orphans are those whose supervisor was killed. Preflight ends them at each start, `platform down`
also ends a supervisor without a socket.

A process is an orphan only if it runs under our user, its environment has this state folder and the
name of one of the stack's processes (which process-compose sets, unlike a shell of the checkout),
and no process-compose is among its ancestors.

Any process may end while it is inspected: each inspection suppresses GONE.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from devtools.address import host_of, is_free, recorded, running_redis
from devtools.catalog import ALL_PROCESSES, REDIS_NODES
from services.common.command import printable

GONE = (psutil.Error, OSError)
# As in process-compose.yaml: the connector has 6 s to finish its work, each other process 2 s.
_STOP_SECONDS_MAX = 6.0
_REDIS_STOP_SECONDS_MAX = 2.0
# One after the other: the router, the APIs, the connector, Redis, and a margin.
_STACK_STOP_SECONDS_MAX = 20.0
_KILL_SECONDS_MAX = 2.0
_POLL_SECONDS = 0.05

# The program (nixpkgs may wrap it), not a shell whose command only mentions it.
_SUPERVISOR = re.compile(r"\.?process-compose[\w.-]*")


@dataclass(frozen=True)
class Holder:
    """The process that listens on a port, as far as this user may inspect it."""

    pid: int | None
    name: str
    state: str = ""
    """Its state folder, if it belongs to a platform stack."""
    process: str = ""
    """Its name in that stack, without a replica number."""

    def __str__(self) -> str:
        return f"{self.name}, pid {self.pid}" if self.pid else self.name

    @property
    def with_stack(self) -> str:
        """The process, and the stack it belongs to, if any."""
        return f"{self}, of the stack in {self.state}" if self.state else str(self)


def holders(ports: Mapping[str, int], environ: Mapping[str, str]) -> Mapping[str, Holder]:
    """For each of the ports that is in use, by name, its listener."""
    busy = {name: port for name, port in ports.items() if not is_free(port, host_of(name, environ))}
    pids = {port: pid for pid, port in reversed(_listeners())} if busy else {}
    unseen = Holder(None, "a process of another user, or one that does not listen on it yet")
    return {name: _holder(pids[port]) if port in pids else unseen for name, port in busy.items()}


def _listeners() -> list[tuple[int | None, int]]:
    try:
        sockets: list[tuple[int | None, Any]] = [
            (sock.pid, sock) for sock in psutil.net_connections(kind="tcp")
        ]
    except psutil.AccessDenied:  # macOS shows all of them only to root
        sockets = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                sockets += [(process.pid, sock) for sock in process.net_connections(kind="tcp")]
    # IPv4 first: the stack listens there, and another program may have the same port of [::1].
    sockets.sort(key=lambda one: one[1].family)
    return [(pid, sock.laddr.port) for pid, sock in sockets if sock.status == psutil.CONN_LISTEN]


def _leader(process: psutil.Process) -> psutil.Process:
    """The parent that shares its socket with forked workers, or the process itself."""
    for parent in process.parents():
        if parent.cmdline() != process.cmdline():
            break
        process = parent
    return process


def _holder(pid: int | None) -> Holder:
    if pid is None:
        return Holder(None, "a process of another user")
    try:
        process = _leader(psutil.Process(pid))
        name = printable(process.name())
    except psutil.Error:
        return Holder(pid, "a process that just ended")
    member = state = ""
    with suppress(*GONE):
        member, state = identity(process)
    return Holder(process.pid, name, state, member)


def identity(process: psutil.Process) -> tuple[str, str]:
    """A process's name in a stack, and that stack's state folder; both empty if in none.

    Only a supervisor sets the name; every shell of a checkout has the folder.

    Raises:
        psutil.Error, OSError: it has ended or belongs to another user.
    """
    environ = process.environ()
    name, state = environ.get("PC_PROC_NAME", ""), environ.get("PLATFORM_STATE", "")
    return (name, os.path.realpath(Path(process.cwd(), state))) if name and state else ("", "")


@dataclass(frozen=True)
class Member:
    """A process of a stack, its name in process-compose, and its process-compose, if any."""

    name: str
    process: psutil.Process
    supervisor: psutil.Process | None

    def __str__(self) -> str:
        return f"{self.name}, pid {self.process.pid}"


def orphans(state: Path) -> list[Member]:
    """The orphans of the stack with this state folder, without their children."""
    members, unsupervised = _members(state), []
    pids = {member.process.pid for member in members}
    for member in members:
        with suppress(*GONE):
            is_own = member.process.uids().real == os.getuid()
            if is_own and not member.supervisor and member.process.ppid() not in pids:
                unsupervised.append(member)
    return unsupervised


def supervisors(state: Path) -> list[psutil.Process]:
    """The process-composes of the stack with this state folder, with or without a socket.

    The one with the most processes comes first: `platform run` starts another beside the stack.
    """
    counts: Counter[psutil.Process] = Counter()
    for supervisor in (member.supervisor for member in _members(state)):
        with suppress(*GONE):
            # Another project's supervisor, started in our shell, may have a process of this name.
            if supervisor and {"PC_SOCKET_PATH", "PC_CONFIG_FILES"} <= supervisor.environ().keys():
                counts[supervisor] += 1
    return [supervisor for supervisor, _ in counts.most_common()]


def running_environ(state: Path) -> Mapping[str, str]:
    """The environment that the running stack was started with; empty if down.

    Includes `.env`, and the settings of the stack's own Redis (`--cluster`).
    """
    for supervisor in supervisors(state):
        with suppress(*GONE):
            environ = supervisor.environ()
            return {**environ, **running_redis(state, environ)}
    return {}


def conflicting_stacks(state: Path) -> list[str]:
    """A line if another stack uses this folder: two Redis would write the same file.

    Root also finds another user's stack, whose socket may have another path.
    """
    parents = psutil.Process().parents()
    for member in _members(state):
        with suppress(*GONE):
            head = member.supervisor or member.process
            if head not in parents and (head != member.process or head.uids().real != os.getuid()):
                remedy = f"`platform down`, or if that fails, kill {head.pid}"
                return [
                    f"PLATFORM_STATE={str(state)!r}: another stack uses it ({member}): {remedy}"
                ]
    return []


def _members(state: Path) -> list[Member]:
    """The processes of the stack with this state folder, except this one and its ancestors.

    They are this user's or the folder's owner's: root would read the environment that anybody else
    gives a process.
    """
    folder, this_process = os.path.realpath(state), psutil.Process()
    users = {os.getuid()}
    with suppress(OSError):
        users.add(state.stat().st_uid)
    names = ALL_PROCESSES | _started(state)
    excluded = {this_process.pid, *(parent.pid for parent in this_process.parents())}
    members = []
    for process in psutil.process_iter():
        with suppress(*GONE):
            if process.pid in excluded or process.status() == psutil.STATUS_ZOMBIE:
                continue
            name, its_folder = identity(process)
            is_theirs = process.uids().real in users
            if is_theirs and name in names and its_folder == folder:
                supervisor = next(filter(_is_supervisor, process.parents()), None)
                members.append(Member(name, process, supervisor))
    return members


def _started(state: Path) -> set[str]:
    """The services of the last start, perhaps of another branch."""
    ports = [name for name in recorded(state) if name.endswith("_PORT")]
    return {name.removesuffix("_PORT").lower().replace("_", "-") for name in ports}


def _is_supervisor(process: psutil.Process) -> bool:
    arguments = [Path(argument).name for argument in [process.name(), *process.cmdline()[:3]]]
    return any(map(_SUPERVISOR.fullmatch, arguments))


def _end(processes: Sequence[psutil.Process], seconds_max: float) -> None:
    workers = []
    for process in processes:
        with suppress(*GONE):
            workers += process.children(recursive=True)
            process.terminate()
    _wait(processes, seconds_max)  # a server ends its workers before itself
    for process in (*processes, *workers):
        with suppress(*GONE):
            process.kill()
    _wait([*processes, *workers], _KILL_SECONDS_MAX)


def _wait(processes: Sequence[psutil.Process], seconds_max: float) -> None:
    # Not psutil.wait_procs, for which a zombie that init does not reap has not ended.
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline and not all(map(is_gone, processes)):
        time.sleep(_POLL_SECONDS)


def is_gone(process: psutil.Process) -> bool:
    """Whether the process has ended; a zombie has, even if init does not reap it."""
    with suppress(*GONE):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def end_orphans(state: Path) -> tuple[str, list[str]]:
    """Ends the orphans, Redis last; returns a sentence and a fault for each survivor."""
    members = orphans(state)
    if not members:
        return "", []
    nodes = [orphan.process for orphan in members if orphan.name in REDIS_NODES]
    _end([one.process for one in members if one.name not in REDIS_NODES], _STOP_SECONDS_MAX)
    _end(nodes, _REDIS_STOP_SECONDS_MAX)
    left = [orphan for orphan in members if not is_gone(orphan.process)]
    faults = [f"{orphan}, was left behind and cannot be ended: kill it by hand" for orphan in left]
    names = "; ".join(map(str, members))
    return f"ended processes left behind by a killed supervisor: {names}", faults


def end_leftovers(state: Path) -> tuple[list[str], list[str]]:
    """Ends the supervisors that no socket reaches, and the orphans.

    Returns what was ended, and faults. A supervisor stops its processes in order.
    """
    unreachable = supervisors(state)
    for supervisor in unreachable:
        with suppress(*GONE):
            supervisor.terminate()
            supervisor.resume()  # it may be suspended
    _wait(unreachable, _STACK_STOP_SECONDS_MAX)
    gone = "stopped the stack of process-compose, pid {}, whose socket was gone"
    ended = [gone.format(supervisor.pid) for supervisor in unreachable if is_gone(supervisor)]
    message, faults = end_orphans(state)
    return [*ended, *filter(None, [message])], faults + (
        conflicting_stacks(state) if unreachable else []
    )
