"""Orphans: processes of a stack whose process-compose was killed. They still hold the ports.

`python -m devtools.orphans` ends those of this checkout; preflight does so at each start.

A process is an orphan only if all of this holds: it runs under our user; its environment has this
state folder, and the name of one of the stack's processes, which process-compose gives to what it
starts (a shell of the same checkout has no such name); no process-compose is among its parents.

Any process may end while it is looked at: every look goes through `look`.
"""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil

from devtools.address import PORT_OFFSETS, state_folder
from services.common.command import run_main

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

T = TypeVar("T")

NAMES = {*PORT_OFFSETS, "preflight", "ready", "reload", "smoke"}
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


def look(get: Callable[[], T], otherwise: T) -> T:
    """What `get` returns, or `otherwise` if the process has ended or access is denied."""
    try:
        return get()
    except (psutil.Error, OSError):
        return otherwise


def find(state: Path) -> list[Orphan]:
    """The orphans of the stack with this state folder, without their children."""
    folder = os.path.realpath(state)
    near = {process.pid for process in _with_parents(psutil.Process())}
    marked = {
        process.pid: Orphan(name, process)
        for process in psutil.process_iter()
        if process.pid not in near and (name := look(partial(_name, process, folder), ""))
    }
    return [
        orphan
        for orphan in marked.values()
        if look(partial(_is_on_its_own, orphan.process, marked), otherwise=False)
    ]


def _with_parents(process: psutil.Process) -> list[psutil.Process]:
    found = [process]
    while parent := look(found[-1].parent, None):
        found.append(parent)
    return found


def _name(process: psutil.Process, folder: str) -> str:
    """Its name in the stack with this state folder; empty if it is no process of that stack."""
    if process.uids().real != os.getuid() or process.status() == psutil.STATUS_ZOMBIE:
        return ""
    given = process.environ()
    name, state = given.get("PC_PROC_NAME", ""), given.get("PLATFORM_STATE", "")
    is_of_it = name in NAMES and state and os.path.realpath(Path(process.cwd(), state)) == folder
    return name if is_of_it else ""


def _is_on_its_own(process: psutil.Process, marked: Container[int]) -> bool:
    """Whether neither a supervisor nor another process of the stack is its ancestor."""
    return process.ppid() not in marked and not any(map(_is_supervisor, process.parents()))


def _is_supervisor(process: psutil.Process) -> bool:
    words = [Path(word).name for word in [process.name(), *process.cmdline()[:3]]]
    return any(map(_SUPERVISOR.fullmatch, words))


def end(orphans: Sequence[Orphan]) -> list[Orphan]:
    """Ends them and their children, Redis last; returns those that are left."""
    redis = [orphan for orphan in orphans if orphan.name == "redis"]
    others = [orphan for orphan in orphans if orphan.name != "redis"]
    _end(others, _STOP_SECONDS_MAX)
    _end(redis, _REDIS_STOP_SECONDS_MAX)
    return [orphan for orphan in orphans if not is_gone(orphan.process)]


def _end(orphans: Iterable[Orphan], seconds_max: float) -> None:
    leaders = [orphan.process for orphan in orphans]
    workers: list[psutil.Process] = []
    none: list[psutil.Process] = []
    for process in leaders:
        workers += look(partial(process.children, recursive=True), none)
        look(process.terminate, None)
    _wait(leaders, seconds_max)  # a server ends its workers before itself
    for process in leaders + workers:
        look(process.kill, None)
    _wait(leaders + workers, _KILL_SECONDS_MAX)


def _wait(processes: Sequence[psutil.Process], seconds_max: float) -> None:
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline and not all(map(is_gone, processes)):
        time.sleep(_POLL_SECONDS)


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended. A zombie has, even if init does not reap it."""
    return look(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
        otherwise=True,
    )


def clear(state: Path) -> tuple[str, list[str]]:
    """Ends the orphans; returns a sentence that names them, and a fault for each survivor."""
    found = find(state)
    if not found:
        return "", []
    left = end(found)
    faults = [f"{orphan}, was left behind and cannot be ended: end it yourself" for orphan in left]
    named = "; ".join(map(str, found))
    return f"ended what was left behind by a supervisor that is gone: {named}", faults


def main() -> int:
    """Ends and names them; returns the exit code."""
    said, faults = clear(state_folder(os.environ))
    if said:
        sys.stdout.write(f"platform: {said}\n")
    sys.stderr.writelines(f"platform: {fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
