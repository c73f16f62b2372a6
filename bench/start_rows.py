"""The stack's start time and idle memory."""

import time
from pathlib import Path

import yaml

from bench import stacks
from bench.results import MeasureError, Row, Sample
from bench.rows import Bench, Measured, log, measures
from devtools.supervisor import SupervisorError
from tests import support
from tests.stack.stack import Stack

_READY_SECONDS_MAX = 60
_IDLE_SECONDS = 2
_POLL_SECONDS = 0.005


def _ready_lines() -> dict[str, str]:
    """The ready line of each process but Redis, which the others need, and the console (off)."""
    processes = yaml.safe_load(stacks.COMPOSE_FILE.read_text())["processes"]
    lines = {name: process.get("ready_log_line", "") for name, process in processes.items()}
    return {name: line for name, line in lines.items() if line and name not in {"redis", "console"}}


@measures(
    Row("start", "`up` to all healthy", "s", 2, 1.5, at_most=True),
    Row("memory", "idle memory of the whole stack", "MB", 250, 180, at_most=True),
)
def _start(bench: Bench) -> Measured:
    starts: list[Sample] = []
    memory: list[Sample] = []
    candidates = _ready_lines()
    megabytes: dict[str, float] = {}
    for _number in bench.rounds():
        began = time.time()
        # Polling each service would slow down the start on two cores.
        with stacks.running(bench.folder, healthy=False) as stack:
            support.wait_until(
                lambda: _has_started(stack), seconds_max=_READY_SECONDS_MAX, what="the stack"
            )
            ready = [state.ready_at for state in stack.states() if state.is_ready]
            seconds = max(at.timestamp() for at in ready if at) - began
            time.sleep(_IDLE_SECONDS)
            if Path("/proc/self/smaps_rollup").exists():
                megabytes = stacks.pss_megabytes(stack)
            alone = {name: _restart_seconds(stack, name, candidates[name]) for name in candidates}
        slowest = max(alone, key=lambda name: alone[name])
        candidates = {slowest: candidates[slowest]}
        starts.append((seconds, max(alone.values())))
        memory.append((sum(megabytes.values()), None))
        log(f"{'start':<16} {seconds:.2f} s, {alone} alone; {memory[-1][0]:.0f} MB")
    yield starts, {"slowest": next(iter(candidates))}
    if not megabytes:
        raise MeasureError("the proportional set size is known on Linux only")
    yield memory, {f"{name} MB": round(size, 1) for name, size in sorted(megabytes.items())}


def _has_started(stack: Stack) -> bool:
    """Whether the last processes, which print the summary, have ended."""
    try:
        states = {state.name: state for state in stack.states()}
    except SupervisorError:
        return False
    return states["ready"].has_succeeded and states["reload"].has_succeeded


def _restart_seconds(stack: Stack, name: str, ready_line: str) -> float:
    """From the start of a process to its ready line, with all others running and idle."""
    supervisor = stacks.supervisor(stack)
    supervisor.stop(name)
    before = stack.log(name).count(ready_line)
    began = time.monotonic()
    supervisor.start(name)
    while stack.log(name).count(ready_line) == before:
        if time.monotonic() - began > _READY_SECONDS_MAX:
            raise MeasureError(f"{name} did not become ready by itself")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - began
