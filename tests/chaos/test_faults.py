"""A PSP that fails in every way, and connectors that are killed."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from collections import Counter

from tests.chaos.harness import Chaos, figures

TRANSACTIONS = 2000
FAULTS = (
    "error_500", "rate_limited", "unavailable", "timeout", "connection_closed",
    "timeout_after_capture", "connection_closed_after_capture",
)  # fmt: skip
KILL_SECONDS = 3
KILLS_MAX = 35  # 105 s, of the two minutes that a test may take; 9 to 14 are enough


def test_faults_and_kills_mixed(chaos: Chaos) -> None:
    """2,000 transactions finish once while a fifth of the calls fail and connectors die."""
    chaos.sandbox("PUT", "faults", json={"error_rate": 0.2, "kinds": FAULTS, "seed": 3})
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        another = stack.enter_context(chaos.connector())
        with chaos.traffic():
            for turn in itertools.count():
                if len(chaos.accepted) >= TRANSACTIONS:
                    break
                assert turn < KILLS_MAX, f"still not over after {KILLS_MAX} kills"
                time.sleep(KILL_SECONDS)
                another = kill_one(chaos, stack, another, of_the_stack=turn % 2 == 0)
        ended = chaos.check()
    injected = Counter(chaos.sandbox("GET", "faults")["given"])
    seen = chaos.sandbox("GET", "payment_intents", params={"limit": "1"})["summary"]
    assert set(FAULTS) == injected.keys()
    assert seen["keys_captured_more_than_once"] == 0
    figures(
        "faults and kills", transactions=len(chaos.accepted), ended=dict(ended),
        connectors_killed=chaos.kills, faults=injected.total(),
        charges_that_came_through=seen["requests"],
        seconds=round(time.monotonic() - began),
    )  # fmt: skip


def kill_one(
    chaos: Chaos,
    stack: contextlib.ExitStack,
    another: subprocess.Popen[bytes],
    *,
    of_the_stack: bool,
) -> subprocess.Popen[bytes]:
    """Kills one of the two connectors; returns the additional one."""
    if of_the_stack:
        with contextlib.suppress(LookupError):
            chaos.kill(chaos.stack.process("psp-connector"))
        return another
    chaos.kills += 1
    another.kill()
    another.wait(5)
    return stack.enter_context(chaos.connector())
