"""A connector is frozen, or stopped by two signals, with work in flight."""

import signal
import time

import psutil

from services.common.store import LEASE_SECONDS
from tests import support
from tests.chaos.conftest import FAST_RETRIES
from tests.chaos.harness import CAPTURES, SLOW, Chaos
from tests.stack.stack import running

IN_FLIGHT = 7  # of 12 slots; two merchants get 10


def test_frozen_and_back(chaos: Chaos) -> None:
    """A connector frozen past its lease, with calls in flight, does no harm when it resumes."""
    chaos.scale("psp-connector", 2)
    frozen = chaos.stack.process("psp-connector-0")
    with chaos.traffic((SLOW, *[CAPTURES] * 9)):
        held = freeze_with_work(chaos, frozen)
        time.sleep(LEASE_SECONDS + 3)
        support.wait_until(
            lambda: [line["event"] for line in chaos.events(1)].count("entry reclaimed") >= held,
            seconds_max=30,
            what="take-over of all that it held",
        )
        frozen.send_signal(signal.SIGCONT)
        time.sleep(1)
    assert list(chaos.check()) == ["captured"]
    assert frozen.is_running(), "it continued and was not restarted"


def freeze_with_work(chaos: Chaos, process: psutil.Process) -> int:
    """Freezes a connector while it holds entries; returns how many."""
    for _try in range(100):
        process.send_signal(signal.SIGSTOP)
        # Twice: commands sent before it was stopped may still take effect.
        if chaos.in_flight(process.pid):
            time.sleep(0.5)
            if held := chaos.in_flight(process.pid):
                return held
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
    raise AssertionError("it never held anything")


def test_a_second_signal_ends_it_at_once() -> None:
    """Its calls are reclaimed after the lease."""
    above_a_slow_charge = {"PSP_TIMEOUT_SECONDS": "4"}
    with running(**FAST_RETRIES | above_a_slow_charge) as stack:
        chaos = Chaos(stack)
        chaos.send(12, (SLOW,))
        support.wait_until(lambda: chaos.in_flight() >= IN_FLIGHT, what="work in flight")
        process = stack.process("psp-connector")
        process.terminate()
        time.sleep(0.3)
        process.terminate()
        process.wait(1.5)
        assert chaos.in_flight(process.pid), "it ended before the charges"
        assert chaos.check() == {"captured": 12}
