"""Processes of a stack whose supervisor was killed: nobody stops them, and they hold the ports.

`python -m services.preflight.orphans` ends those of this checkout; preflight does on each start.

A process is one of them only if all of this holds: it runs under our user; it was given this
state folder; it bears the name of one of the stack's processes, which a supervisor gives to what
it starts (a shell of the same checkout has no such name); and no supervisor is above it. Where one
is, of whatever stack, it is left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from services.address import PORT_OFFSETS, state_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    """One of them, with the name it has in process-compose.yaml; its children go with it."""

    name: str
    process: psutil.Process

    def __str__(self) -> str:
        return f"{self.name}, pid {self.process.pid}"


def find(state: Path) -> list[Orphan]:
    """The orphans of the stack with this state folder, without their children."""
    folder = os.path.realpath(state)
    near = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    marked: dict[int, Orphan] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in near and (name := _name(process, folder)):
                marked[process.pid] = Orphan(name, process)
    return [
        orphan
        for orphan in marked.values()
        if orphan.process.ppid() not in marked and not _is_supervised(orphan.process)
    ]


def _name(process: psutil.Process, folder: str) -> str:
    """What it is in the stack with this state folder, or nothing."""
    if process.uids().real != os.getuid() or process.status() == psutil.STATUS_ZOMBIE:
        return ""
    given = process.environ()
    name, state = given.get("PC_PROC_NAME", ""), given.get("PLATFORM_STATE", "")
    is_of_it = name in NAMES and state and os.path.realpath(Path(process.cwd(), state)) == folder
    return name if is_of_it else ""


def _is_supervised(process: psutil.Process) -> bool:
    """In doubt it is: what cannot be seen, or has just ended, is nothing to be ended."""
    try:
        return any(_is_supervisor(parent) for parent in process.parents())
    except psutil.Error:
        return True


def _is_supervisor(process: psutil.Process) -> bool:
    words = [Path(word).name for word in [process.name(), *process.cmdline()[:3]]]
    return any(map(_SUPERVISOR.fullmatch, words))


def end(orphans: Sequence[Orphan]) -> list[Orphan]:
    """Ends them and their children, Redis after those that write to it; returns who is left."""
    redis = [orphan for orphan in orphans if orphan.name == "redis"]
    others = [orphan for orphan in orphans if orphan.name != "redis"]
    _end(others, _STOP_SECONDS_MAX)
    _end(redis, _REDIS_STOP_SECONDS_MAX)
    return [orphan for orphan in orphans if not is_gone(orphan.process)]


def _end(orphans: Iterable[Orphan], seconds_max: float) -> None:
    family: list[psutil.Process] = []
    for orphan in orphans:
        with contextlib.suppress(psutil.Error):
            family += [orphan.process, *orphan.process.children(recursive=True)]
            orphan.process.terminate()  # a server ends its workers itself
    _wait(family, seconds_max)
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait(family, _KILL_SECONDS_MAX)


def _wait(processes: Sequence[psutil.Process], seconds_max: float) -> None:
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline and not all(map(is_gone, processes)):
        time.sleep(_POLL_SECONDS)


def is_gone(process: psutil.Process) -> bool:
    """Whether it does no harm any more."""
    # A zombie holds nothing any more; not every machine's first process buries them.
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def clear(state: Path) -> tuple[str, list[str]]:
    """Ends the orphans; a sentence that names them, and a fault for each that is still there."""
    found = find(state)
    if not found:
        return "", []
    left = end(found)
    faults = [f"{orphan}, was left behind and cannot be ended: end it yourself" for orphan in left]
    named = "; ".join(map(str, found))
    return f"ended what was left behind by a supervisor that is gone: {named}", faults


def main() -> int:
    """Ends them, names them; returns the exit code."""
    said, faults = clear(state_folder(os.environ))
    if said:
        sys.stdout.write(f"platform: {said}\n")
    sys.stderr.writelines(f"platform: {fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
