"""Orphans: processes of a stack whose process-compose was killed. They still hold the ports.

`python -m devtools.orphans` ends those of this checkout; preflight does so at each start.

A process is an orphan only if it runs under our user, its environment has this state folder and the
name of one of the stack's processes (which process-compose sets, unlike a shell of the checkout),
and no process-compose is among its ancestors.

Any process may end while it is inspected: each inspection suppresses GONE.
"""

import os
import re
import sys
import time
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from devtools import ports
from devtools.address import state_folder
from devtools.catalog import PROCESSES
from services.common.command import run_main

GONE = (psutil.Error, OSError)
# As in process-compose.yaml: the connector has 6 s to finish its work, each other process 2 s.
_STOP_SECONDS_MAX = 6.0
_REDIS_STOP_SECONDS_MAX = 2.0
_KILL_SECONDS_MAX = 2.0
_POLL_SECONDS = 0.05

# The program (nixpkgs may wrap it), not a shell whose command only mentions it.
_SUPERVISOR = re.compile(r"\.?process-compose[\w.-]*")


@dataclass(frozen=True)
class Orphan:
    """An orphan and its name in process-compose.yaml. Its children end with it."""

    name: str
    process: psutil.Process

    def __str__(self) -> str:
        return f"{self.name}, pid {self.process.pid}"


def find(state: Path) -> list[Orphan]:
    """The orphans of the stack with this state folder, without their children."""
    marked, found = _marked(state), []
    for orphan in marked.values():
        with suppress(*GONE):
            is_own = orphan.process.uids().real == os.getuid()
            if is_own and _is_unsupervised(orphan.process, marked):
                found.append(orphan)
    return found


def rivals(state: Path) -> list[str]:
    """A line if another stack uses this folder: two Redis would write the same file.

    To root also another user's, whose socket can have another path.
    """
    own = psutil.Process().parents()
    for one in _marked(state).values():
        with suppress(*GONE):
            head = next(filter(_is_supervisor, one.process.parents()), one.process)
            if head not in own and (head != one.process or head.uids().real != os.getuid()):
                cure = f"`platform down`, or if that fails, kill {head.pid}"
                return [f"PLATFORM_STATE={str(state)!r}: another stack uses it ({one}): {cure}"]
    return []


def _marked(state: Path) -> dict[int, Orphan]:
    """The processes of the stack with this state folder, except this one and its ancestors."""
    folder = os.path.realpath(state)
    own = psutil.Process()
    excluded = {own.pid, *(parent.pid for parent in own.parents())}
    marked = {}
    for process in psutil.process_iter():
        with suppress(*GONE):
            if process.pid not in excluded and (name := _name(process, folder)):
                marked[process.pid] = Orphan(name, process)
    return marked


def _name(process: psutil.Process, folder: str) -> str:
    """Its name in the stack with this state folder; empty if it is no process of that stack."""
    if process.status() == psutil.STATUS_ZOMBIE:
        return ""
    name, state = ports.identity(process)
    return name if name in PROCESSES and state == folder else ""


def _is_unsupervised(process: psutil.Process, marked: Container[int]) -> bool:
    """Whether neither a supervisor nor another process of the stack is its ancestor."""
    return process.ppid() not in marked and not any(map(_is_supervisor, process.parents()))


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


def clear(state: Path) -> tuple[str, list[str]]:
    """Ends the orphans, Redis last; returns a sentence and a fault for each survivor."""
    found = find(state)
    if not found:
        return "", []
    _end([orphan.process for orphan in found if orphan.name != "redis"], _STOP_SECONDS_MAX)
    _end([orphan.process for orphan in found if orphan.name == "redis"], _REDIS_STOP_SECONDS_MAX)
    left = [orphan for orphan in found if not is_gone(orphan.process)]
    faults = [f"{orphan}, was left behind and cannot be ended: end it yourself" for orphan in left]
    names = "; ".join(map(str, found))
    return f"ended processes left behind by a killed supervisor: {names}", faults


def main() -> int:
    """Ends and reports the orphans; returns the exit code."""
    message, faults = clear(state_folder(os.environ))
    if message:
        sys.stdout.write(f"platform: {message}\n")
    sys.stderr.writelines(f"platform: {fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
