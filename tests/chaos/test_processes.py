"""Every process, and the whole stack, is killed under load."""

import contextlib
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from devtools.catalog import SERVICES
from tests import support
from tests.chaos.conftest import FAST_RETRIES
from tests.chaos.harness import Chaos
from tests.stack.stack import processes_of, running

TRAFFIC_SECONDS = 5  # without the outages


@pytest.mark.parametrize(
    "names",
    [
        ["redis"] * 4,
        ["psp-sandbox", "worker of psp-sandbox", "psp-sandbox"],
        ["worker of core-api"] * 3 + ["core-api"],
        ["redis", "psp-connector", "psp-sandbox", "core-api", "router", "auth-api"],
    ],
    ids=["redis", "psp-sandbox", "core-api", "each"],
)
def test_killed_under_load(chaos: Chaos, names: list[str]) -> None:
    """After `kill -9`, all accepted transactions end, captured at most once; logs continue."""
    logs = {name: chaos.stack.log(name) for name in SERVICES}
    with chaos.traffic():
        for name in names:
            time.sleep(TRAFFIC_SECONDS / len(names))
            chaos.kill(support.wait_until(partial(victim, chaos, name), what=name))
        chaos.stack.wait_healthy()
    assert [n for n, log in logs.items() if not chaos.stack.log(n).startswith(log)] == []
    chaos.check()


def victim(chaos: Chaos, name: str) -> psutil.Process | None:
    """The process of that name, or a worker of it; None if it is not healthy now."""
    service = name.removeprefix("worker of ")
    with contextlib.suppress(LookupError, psutil.Error):
        if chaos.stack.healthy(service):
            process = chaos.stack.process(service)
            return process if service == name else next(iter(process.children()), None)
    return None


def none_left(state: Path) -> bool:
    """`kill -9` of the supervisor and all its descendants; whether there was none."""
    found = processes_of(state)
    for process in found:
        process.kill()
    return not found


def test_the_whole_stack_is_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A stack killed with work everywhere finishes all of it after a restart."""
    state = tmp_path_factory.mktemp("s", numbered=True)
    with running(state=state, **FAST_RETRIES) as stack:
        before = Chaos(stack)
        # Faults for ten attempts, so that many are in flight and many wait.
        faults = {"error_rate": 0.5, "kinds": ["error_500", "timeout"]}
        stack.sandbox("PUT", "faults", json=faults)
        before.send(150)
        open_ones = before.statuses(before.accepted)
        support.wait_until(partial(none_left, state), seconds_max=20, what="the end of all")
    with running(state=state, **FAST_RETRIES) as stack:
        after = Chaos(stack, accepted=before.accepted)
        after.check()
        after.send(20)
        after.check()
    left_open = sum(n for status, n in open_ones.items() if status in {"queued", "processing"})
    assert left_open, "all was over before the kill"
