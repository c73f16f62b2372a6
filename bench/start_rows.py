"""The stack's start time and idle memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import compose, stacks
from bench.errors import MeasureError
from bench.figures import Goal, Sample
from bench.rows import Bench, Row, tell_sample
from bench.stack_processes import SUPERVISOR, pss_megabytes
from devtools.address import BLOCK
from devtools.supervisor import SupervisorError
from tests import support
from tests.stack import stack as test_stacks

if TYPE_CHECKING:
    from bench.figures import Result
    from tests.stack.stack import Stack

_READY_SECONDS_MAX = 60


@dataclass(frozen=True)
class Fresh:
    """Measurements of a stack that has just started."""

    seconds: float
    slowest_alone: float
    megabytes: dict[str, float]


class Alone:
    """The stack's processes, each started alone with Redis."""

    def __init__(self, bench: Bench, ending: contextlib.ExitStack) -> None:
        self._folder = bench.folder / "alone"
        port = support.free_ports(BLOCK)
        self._environ = test_stacks.environment(self._folder, port)
        self._processes = compose.processes(stacks.COMPOSE_FILE)
        command = [sys.executable, "-m", "devtools.preflight"]
        done = subprocess.run(
            command, env=self._environ, cwd=support.ROOT, capture_output=True, text=True,
            check=False, timeout=_READY_SECONDS_MAX,
        )  # fmt: skip
        if done.returncode != 0:
            raise MeasureError(done.stderr.strip())
        self._redis = ending.enter_context(self._started("redis"))
        self.slowest = max(self._processes, key=self.seconds)

    def seconds(self, name: str) -> float:
        """From the start of the process to its ready line."""
        if name == "redis":
            return self._redis
        with self._started(name) as seconds:
            return seconds

    def _started(self, name: str) -> contextlib.AbstractContextManager[float]:
        return compose.alone(name, self._processes[name], self._environ, self._folder)


def _fresh(bench: Bench) -> tuple[str, list[Fresh]]:
    """Both rows use the same stacks."""
    found = []
    with contextlib.ExitStack() as ending:
        alone = Alone(bench, ending)
        bench.tell(f"{'start':<16} the slowest process by itself is {alone.slowest}")
        if bench.plan.start_rounds > 1:
            with stacks.running(bench.folder):
                pass  # the first start finds nothing in the system's caches
        for _number in bench.rounds(bench.plan.start_rounds):
            seconds, megabytes = _start(bench)
            found.append(Fresh(seconds, alone.seconds(alone.slowest), megabytes))
            bench.tell(f"{'start':<16} {seconds:.2f} s, {sum(megabytes.values()):.0f} MB")
        return alone.slowest, found


def _start(bench: Bench) -> tuple[float, dict[str, float]]:
    began = time.time()
    # Polling each service would take a good part of the start on two cores.
    with stacks.running(bench.folder, healthy=False) as platform:
        # The last processes print the greeting and end.
        support.wait_until(
            lambda: _has_started(platform.stack),
            seconds_max=_READY_SECONDS_MAX,
            what="the end of the start",
        )
        ready = [state.ready_at for state in platform.stack.states() if state.is_ready]
        seconds = max(at.timestamp() for at in ready if at) - began
        time.sleep(bench.plan.idle_seconds)
        return seconds, _megabytes(platform.stack)


def _has_started(stack: Stack) -> bool:
    try:
        states = {state.name: state for state in stack.states()}
    except SupervisorError:
        return False
    return states["ready"].has_succeeded and states["reload"].has_succeeded


def _megabytes(stack: Stack) -> dict[str, float]:
    return pss_megabytes(stack) if Path("/proc/self/smaps_rollup").exists() else {}


def _up(bench: Bench, row: Row) -> Result:
    slowest, found = bench.once("fresh", lambda: _fresh(bench))
    samples = [Sample(value=fresh.seconds, floor=fresh.slowest_alone) for fresh in found]
    for number, sample in enumerate(samples, 1):
        tell_sample(bench, row, number, len(samples), sample)
    return row.result(samples, {"slowest": slowest})


def _memory(bench: Bench, row: Row) -> Result:
    _, found = bench.once("fresh", lambda: _fresh(bench))
    if not found[0].megabytes:
        raise MeasureError("the proportional set size of a process needs Linux")
    samples = [Sample(value=sum(fresh.megabytes.values())) for fresh in found]
    last = found[-1].megabytes
    by_process = {f"{name} MB": round(megabytes, 1) for name, megabytes in sorted(last.items())}
    without = sum(megabytes for name, megabytes in last.items() if name != SUPERVISOR)
    return row.result(samples, {"without the supervisor MB": round(without, 1), **by_process})


ROWS = (
    Row(
        "start",
        "`up` to all healthy",
        "the slowest process started by itself, to the same ready line",
        "s",
        "ratio",
        Goal(goal=2, beyond=1.5, at_most=True),
        _up,
    ),
    Row(
        "memory",
        "idle memory of the whole stack",
        "",
        "MB",
        "amount",
        Goal(goal=250, beyond=180, at_most=True),
        _memory,
    ),
)
