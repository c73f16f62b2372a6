"""The processes that listen on this machine's ports."""

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from devtools.address import CLUSTER_BLOCK, HIGHEST


@dataclass(frozen=True)
class Holder:
    """The process that listens on a port, as far as this user may inspect it."""

    pid: int | None
    name: str
    state: str = ""
    """Its state folder, if it belongs to a platform stack."""

    def __str__(self) -> str:
        return f"{self.name}, pid {self.pid}" if self.pid else self.name

    @property
    def with_stack(self) -> str:
        """Its text with the stack that it belongs to, if any."""
        return f"{self}, of the stack in {self.state}" if self.state else str(self)


def is_free(port: int) -> bool:
    """Whether the loopback port is free."""
    with socket.socket() as probe:
        # As the servers do: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def holders(ports: Mapping[str, int]) -> Mapping[str, Holder]:
    """For each of the ports that is in use, by name, its listener."""
    busy = {name: port for name, port in ports.items() if not is_free(port)}
    pids = {port: pid for pid, port in reversed(_listeners())} if busy else {}
    unseen = Holder(None, "a process of another user, or one that does not listen on it yet")
    return {name: _holder(pids[port]) if port in pids else unseen for name, port in busy.items()}


def _listeners() -> list[tuple[int | None, int]]:
    try:
        sockets: list[tuple[int | None, Any]] = [
            (one.pid, one) for one in psutil.net_connections(kind="tcp")
        ]
    except psutil.AccessDenied:  # macOS shows all of them only to root
        sockets = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                sockets += [(process.pid, one) for one in process.net_connections(kind="tcp")]
    return [(pid, one.laddr.port) for pid, one in sockets if one.status == psutil.CONN_LISTEN]


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
        name = process.name()
    except psutil.Error:
        return Holder(pid, "a process that just ended")
    state = ""
    with contextlib.suppress(psutil.Error, OSError):
        _, state = identity(process)
    return Holder(process.pid, name, state)


def identity(process: psutil.Process) -> tuple[str, str]:
    """A process's name in a stack, and that stack's state folder; both empty if in none.

    Only a supervisor sets the name; every shell of a checkout has the folder.

    Raises:
        psutil.Error, OSError: it has ended or belongs to another user.
    """
    environ = process.environ()
    name, state = environ.get("PC_PROC_NAME", ""), environ.get("PLATFORM_STATE", "")
    return (name, os.path.realpath(Path(process.cwd(), state))) if name and state else ("", "")


def free_block(first: int) -> int | None:
    """The first port of a free block at `first` + 100, + 200, …; None after 50 tries.

    With room for a Redis Cluster.
    """
    for candidate in range(first + 100, min(first + 5100, HIGHEST + 1), 100):
        if all(is_free(port) for port in range(candidate, candidate + CLUSTER_BLOCK)):
            return candidate
    return None
