"""Connectors are killed at each step, frozen and stopped while others continue."""

from __future__ import annotations

import json
import signal
import time

import psutil
import pytest

from services.psp_connector.queue import LEASE_SECONDS
from tests import support
from tests.chaos.harness import CAPTURES, FLAKY, SLOW, Chaos, figures
from tests.chaos.paused_connector import STEPS

# The lease, the second between two reclaims, and as much again for a slow machine.
TAKE_OVER_SECONDS_MAX = LEASE_SECONDS + 1 + 8
STOP_SECONDS_MAX = 10
# The slots of two merchants out of eight; the last is for a third one.
IN_FLIGHT = 7


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(lasting: Chaos, step: str) -> None:
    """After `kill -9` at each step another connector takes over, and no effect happens twice."""
    chaos, signal_file = lasting, lasting.stack.state / f"paused {step}"
    methods = (FLAKY,) if step.endswith(("retry", "promote")) else (CAPTURES,)
    chaos.own_connector("stop")
    with chaos.connector(
        "tests.chaos.paused_connector", PAUSE_AT=step, PAUSE_FILE=str(signal_file)
    ) as victim:
        ids = chaos.send(8, methods)
        support.wait_until(signal_file.exists, seconds_max=20, what=f"the pause {step}")
        chaos.own_connector("start")
        chaos.kills += 1
        victim.kill()
        killed_at = time.monotonic()
        chaos.wait_ended(ids, TAKE_OVER_SECONDS_MAX)
        seconds = time.monotonic() - killed_at
    figures(f"killed {step}", transactions=len(ids), all_ended_after=f"{seconds:.1f} s")
    assert {"captured": len(chaos.accepted)} == chaos.check()


def test_frozen_and_back(chaos: Chaos) -> None:
    """A connector frozen past its lease, with calls in flight, does no harm when it resumes."""
    with chaos.connector():
        support.wait_until(lambda: "listening" in chaos.another_log(), what="another connector")
        frozen = chaos.stack.process("psp-connector")
        with chaos.traffic((SLOW, *[CAPTURES] * 9)):
            held = freeze_with_work(chaos, frozen)
            time.sleep(LEASE_SECONDS + 3)
            support.wait_until(
                lambda: chaos.another_log().count('"reclaimed"') >= held,
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


def in_flight_of_another(chaos: Chaos, count: int) -> None:
    support.wait_until(lambda: chaos.in_flight() >= count, seconds_max=20, what="work in flight")


def test_sigterm_finishes_calls_in_flight(patient: Chaos) -> None:
    """After SIGTERM a connector takes no entries, finishes its calls, and ends within 10 s."""
    patient.own_connector("stop")
    with patient.connector() as process:
        patient.send(24, (SLOW,))
        in_flight_of_another(patient, IN_FLIGHT)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS_MAX) == 0
        seconds = time.monotonic() - began
    stopped = json.loads(patient.another_log().splitlines()[-1])
    assert (stopped["event"], stopped["unfinished"]) == ("stopped", 0)
    assert patient.in_flight() == 0
    figures(f"SIGTERM with {IN_FLIGHT} slow charges in flight", left_after=f"{seconds:.1f} s")
    patient.own_connector("start")
    support.http.get(f"http://127.0.0.1:{patient.port('psp-connector')}/health").raise_for_status()
    assert patient.check() == {"captured": 24}


def test_a_second_signal_leaves_at_once(patient: Chaos) -> None:
    """A second signal ends it at once; its calls are reclaimed after the lease."""
    patient.own_connector("stop")
    with patient.connector() as process:
        patient.send(8, (SLOW,))
        in_flight_of_another(patient, IN_FLIGHT)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(1.5)
        seconds = time.monotonic() - began
    held = patient.in_flight()
    assert held, "it left before the charges, of 2 s, were over"
    figures("second SIGTERM", in_flight=held, left_after=f"{seconds:.2f} s")
    patient.own_connector("start")
    assert patient.check() == {"captured": 8}
