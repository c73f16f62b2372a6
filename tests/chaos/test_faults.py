"""A PSP that fails in every way, and connectors that are killed."""

import time
from functools import partial

from tests import support
from tests.chaos.harness import Chaos

TRANSACTIONS = 2000
FAULTS = (
    "error_500", "rate_limited", "unavailable", "timeout", "connection_closed",
    "timeout_after_capture", "connection_closed_after_capture",
)  # fmt: skip
KILL_SECONDS = 3
KILLS_MAX = 35  # 105 s, of the two minutes that a test may take; 9 to 14 are enough


def test_faults_and_kills_mixed(chaos: Chaos) -> None:
    """2,000 transactions finish once while a fifth of the calls fail and connectors die."""
    chaos.stack.sandbox("PUT", "faults", json={"error_rate": 0.2, "kinds": FAULTS, "seed": 3})
    chaos.scale("psp-connector", 2)
    with chaos.traffic():
        while len(chaos.accepted) < TRANSACTIONS:
            assert chaos.kills < KILLS_MAX, f"still not over after {KILLS_MAX} kills"
            time.sleep(KILL_SECONDS)
            name = f"psp-connector-{chaos.kills % 2}"
            chaos.kill(support.wait_until(partial(chaos.alive, name), what=name))
    chaos.check()
    assert chaos.stack.sandbox("GET", "faults")["given"].keys() == set(FAULTS)
