"""Every process, and the whole stack, is killed under load."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests import support
from tests.chaos.conftest import HASTE
from tests.chaos.harness import Chaos, figures
from tests.stack.stack import processes_of, running


def redis(chaos: Chaos) -> None:
    """Kills Redis four times."""
    for _kill in range(4):
        time.sleep(1)
        chaos.kill_and_wait("redis")


def sandbox(chaos: Chaos) -> None:
    """Kills the master, then a worker, then both."""
    time.sleep(1)
    chaos.kill_and_wait("psp-sandbox")
    time.sleep(1)
    chaos.kill(chaos.stack.process("psp-sandbox").children()[0])
    time.sleep(1)
    for child in chaos.stack.process("psp-sandbox").children():
        chaos.kill(child)
    chaos.kill_and_wait("psp-sandbox")


def core_api(chaos: Chaos) -> None:
    """Kills three workers, then the master."""
    for _round in range(3):
        time.sleep(0.7)
        worker = chaos.stack.process("core-api").children()[0]
        chaos.kill(worker)
        support.wait_until(lambda: not worker.is_running(), what="the worker's end")  # noqa: B023
    time.sleep(0.7)
    chaos.kill_and_wait("core-api")


def one_of_each(chaos: Chaos) -> None:
    """Kills one process after the other without waiting; their logs continue."""
    names = ("redis", "psp-connector", "psp-sandbox", "core-api", "router", "auth-api")
    logs = {name: chaos.stack.log(name) for name in names}
    for name in names:
        time.sleep(0.4)
        chaos.kill(support.wait_until(partial(alive, chaos, name), what=name))
    chaos.stack.wait_healthy()
    assert {n for n, log in logs.items() if not chaos.stack.log(n).startswith(log)} == set()


def alive(chaos: Chaos, name: str) -> psutil.Process | None:
    with contextlib.suppress(LookupError):
        return chaos.stack.process(name)
    return None


@pytest.mark.parametrize("kill", [redis, sandbox, core_api, one_of_each])
def test_killed_under_load(chaos: Chaos, kill: Callable[[Chaos], None]) -> None:
    """After `kill -9`, all accepted transactions finish and are captured at most once."""
    with chaos.traffic():
        kill(chaos)
    ended = chaos.check()
    figures(
        f"{kill.__name__} killed", kills=chaos.kills, ended=dict(ended),
        repeated_requests=chaos.repeats,
    )  # fmt: skip


def kill_all(state: Path) -> int:
    """`kill -9` of the supervisor and all its descendants; returns how many."""
    killed: set[int] = set()

    def none_left() -> bool:
        found = processes_of(state)
        for process in found:
            killed.add(process.pid)
            process.kill()
        psutil.wait_procs(found, timeout=5)
        return not found

    support.wait_until(none_left, seconds_max=20, what="the end of all processes")
    return len(killed)


def test_the_whole_stack_is_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A stack killed with work everywhere finishes all of it after a restart."""
    state = tmp_path_factory.mktemp("s", numbered=True)
    with running(state=state, **HASTE) as stack:
        before = Chaos(stack)
        # Faults for ten attempts, so that many are in flight and many wait.
        before.sandbox("PUT", "faults", json={"error_rate": 0.5, "kinds": ["error_500", "timeout"]})
        before.send(150)
        open_ones = before.statuses(before.accepted)
        killed = kill_all(state)
    began = time.monotonic()
    with running(state=state, **HASTE) as stack:
        after = Chaos(stack, accepted=before.accepted)
        ended = after.check()
        seconds = time.monotonic() - began
        after.send(20)
        after.check()
    left_open = sum(n for status, n in open_ones.items() if status in {"queued", "processing"})
    assert left_open, "all was over before the kill"
    figures(
        "whole stack killed", kills=killed, open_then=left_open, ended=dict(ended),
        all_ended_after=f"{seconds:.1f} s with the start",
    )  # fmt: skip
