"""CPU time and memory of a running stack."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack.stack import Stack

SUPERVISOR = "supervisor"


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """User and system time of each process of the stack so far, its workers included."""
    used: dict[str, float] = defaultdict(float)
    for name, process in _named(stack):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used[name] += times.user + times.system
    return dict(used)


def pss_megabytes(stack: Stack) -> dict[str, float]:
    """Memory of each: shared pages are divided among their users (Linux only)."""
    used: dict[str, float] = defaultdict(float)
    for name, process in _named(stack):
        with contextlib.suppress(psutil.NoSuchProcess):
            used[name] += process.memory_full_info().pss / 1e6
    return dict(used)


def _named(stack: Stack) -> Iterator[tuple[str, psutil.Process]]:
    """The supervisor, and its descendants by the name of the process they belong to."""
    supervisor = psutil.Process(stack.supervisor.pid)
    yield SUPERVISOR, supervisor
    for started in supervisor.children():
        with contextlib.suppress(psutil.Error):
            # Redis overwrites its environment with its title.
            name = started.environ().get("PC_PROC_NAME") or started.name()
            for process in (started, *started.children(recursive=True)):
                yield name, process
