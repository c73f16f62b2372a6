"""A connector is frozen or stopped with work in flight."""

import signal
import time

import psutil

from services.common.store import LEASE_SECONDS
from tests import support
from tests.chaos.harness import CAPTURES, SLOW, Chaos, figures

STOP_SECONDS_MAX = 10
IN_FLIGHT = 7  # of 12 slots; two merchants get 10


def test_frozen_and_back(chaos: Chaos) -> None:
    """A connector frozen past its lease, with calls in flight, does no harm when it resumes."""
    chaos.scale("psp-connector", 2)
    frozen = chaos.stack.process("psp-connector-0")
    with chaos.traffic((SLOW, *[CAPTURES] * 9)):
        held = freeze_with_work(chaos, frozen)
        time.sleep(LEASE_SECONDS + 3)
        support.wait_until(
            lambda: [line["event"] for line in chaos.events(1)].count("reclaimed") >= held,
            seconds_max=30,
            what="take-over of all that it held",
        )
        frozen.send_signal(signal.SIGCONT)
        time.sleep(1)
    ended = chaos.check()
    figures("frozen and back", held=held, ended=dict(ended))
    assert list(ended) == ["captured"]
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


def busy(chaos: Chaos, count: int) -> psutil.Process:
    """The connector, with slow charges in flight."""
    chaos.send(count, (SLOW,))
    support.wait_until(
        lambda: chaos.in_flight() >= IN_FLIGHT, seconds_max=20, what="work in flight"
    )
    return chaos.stack.process("psp-connector")


def test_sigterm_finishes_calls_in_flight(patient: Chaos) -> None:
    """After SIGTERM a connector takes no entries, finishes its calls, and ends within 10 s."""
    process = busy(patient, 24)
    began = time.monotonic()
    process.terminate()
    process.wait(STOP_SECONDS_MAX)
    seconds = time.monotonic() - began
    stopped = patient.events()[-1]
    assert (stopped["event"], stopped["unfinished"]) == ("stopped", "0")
    assert patient.in_flight() == 0
    figures("SIGTERM with slow charges in flight", left_after=f"{seconds:.1f} s")
    assert patient.stack.compose("process", "start", "psp-connector").returncode == 0
    assert patient.check() == {"captured": 24}


def test_a_second_signal_leaves_at_once(patient: Chaos) -> None:
    """A second signal ends it at once; its calls are reclaimed after the lease."""
    process = busy(patient, 12)
    process.terminate()
    time.sleep(0.3)
    began = time.monotonic()
    process.terminate()
    process.wait(1.5)
    seconds = time.monotonic() - began
    held = patient.in_flight(process.pid)
    assert held, "it left before the charges, of 2 s, were over"
    figures("second SIGTERM", in_flight=held, left_after=f"{seconds:.2f} s")
    assert patient.check() == {"captured": 12}
