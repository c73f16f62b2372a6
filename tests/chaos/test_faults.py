"""A PSP that fails in every way it can, and connectors that die meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.chaos.harness import CAPTURES, figures

if TYPE_CHECKING:
    import subprocess

    from tests.chaos.harness import Chaos

TRANSACTIONS = 2000
FAULTS = (
    "error_500", "rate_limited", "unavailable", "timeout", "connection_closed",
    "timeout_after_capture", "connection_closed_after_capture",
)  # fmt: skip
KILL_SECONDS = 3
KILLS_MAX = 35  # 105 s, of the two minutes that a test may take; 9 to 14 are enough


def test_faults_and_kills_mixed(chaos: Chaos) -> None:
    """2,000 transactions, a fifth of the calls fail, two connectors, one killed every 3 s."""
    chaos.sandbox("PUT", "faults", json={"error_rate": 0.2, "kinds": FAULTS, "seed": 3})
    began = time.monotonic()
    with contextlib.ExitStack() as stack, chaos.sending(TRANSACTIONS) as sending:
        another = stack.enter_context(chaos.connector())
        for turn in itertools.count():
            if not sending() and chaos.ended(chaos.accepted):
                break
            assert turn < KILLS_MAX, f"still not over after {KILLS_MAX} kills"
            time.sleep(KILL_SECONDS)
            another = kill_one(chaos, stack, another, of_the_stack=turn % 2 == 0)
        injected = Counter(chaos.sandbox("GET", "faults")["given"])
        ended = chaos.check()
    seen = chaos.sandbox("GET", "payment_intents", params={"limit": "1"})["summary"]
    lost, doubled = TRANSACTIONS - ended.total(), seen["keys_captured_more_than_once"]
    assert set(FAULTS) == injected.keys()
    assert (lost, doubled) == (0, 0)
    figures(
        "faults and kills", transactions=TRANSACTIONS, ended=dict(ended), lost=lost,
        doubled=doubled, connectors_killed=chaos.kills, faults=injected.total(),
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
    """Kills one of the two connectors; returns that which is beside the stack's own."""
    if of_the_stack:
        with contextlib.suppress(LookupError):
            chaos.kill(chaos.stack.process("psp-connector"))
        return another
    chaos.kills += 1
    another.kill()
    another.wait(5)
    return stack.enter_context(chaos.connector())


def test_a_psp_that_is_down(chaos: Chaos) -> None:
    """Down for 8 s with 200 queued: few calls meanwhile, no flood after, none failed."""
    chaos.sandbox("PUT", "faults", json={"down": "unavailable"})
    chaos.send(200, (CAPTURES,))
    time.sleep(8)
    calls_down = sum(chaos.sandbox("GET", "faults")["given"].values())
    chaos.sandbox("DELETE", "faults")
    back = time.monotonic()
    ended = chaos.check()
    seconds = time.monotonic() - back
    with contextlib.closing(chaos.redis()) as client:
        attempts = [int(client.hget(f"transaction:{i}", "attempts")) for i in chaos.accepted]
    calls = chaos.sandbox("GET", "payment_intents", params={"limit": "1"})["summary"]["requests"]
    assert ended == {"captured": 200}
    assert calls_down <= 30
    assert calls <= 220, "nearly each was charged by its first call after the outage"
    figures(
        "PSP down for 8 s", queued=200, requests_meanwhile=calls_down,
        attempts_at_most=max(attempts),
        all_captured_after=f"{seconds:.1f} s",
    )  # fmt: skip
