"""A PSP that is down for ten minutes, simulated in a second or two."""

from __future__ import annotations

import threading
import time

import pytest

from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import Breaker
from services.psp_connector.psp import Charge, Outcome
from tests.psp_connector.payments import FakePsp, Payments, running

DOWN_SECONDS = 600
QUEUED = 200
CONCURRENCY = 8


class Clock:
    """Real time plus the connector's sleeps, which are skipped."""

    def __init__(self) -> None:
        self._slept = 0.0

    def __call__(self) -> float:
        return self._slept + time.monotonic()

    def sleep(self, seconds: float) -> None:
        self._slept += seconds
        time.sleep(0.0002)  # the probe's thread gets its turn


class DownPsp(FakePsp):
    """Recovers at a given time; counts calls before and after."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._back_at = clock() + DOWN_SECONDS
        self._lock_of_counts = threading.Lock()
        self.down_calls = self.up_calls = self.at_once = self.at_once_most = 0
        self.ramp: list[int] = []
        """How many calls were under way with each of the first after its return."""

    def is_up(self) -> bool:
        self.up = self._clock() >= self._back_at
        return self.up

    def charge(self, charge: Charge) -> Outcome:
        up = self.is_up()
        with self._lock_of_counts:
            self.down_calls += not up
            self.up_calls += up
            self.at_once += 1
            if up:
                self.ramp.append(self.at_once)
        time.sleep(0.002)
        outcome = super().charge(charge)
        with self._lock_of_counts:
            self.at_once -= 1
        return outcome

    def is_available(self) -> bool:
        self.is_up()
        return super().is_available()


def test_ten_minutes_down(payments: Payments, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no busy loop, no used attempt and no flood; the next call captures each."""
    # The clock jumps over it.
    monkeypatch.setattr("services.psp_connector.lane.BLOCK_MS", 200)
    clock = Clock()
    psp = DownPsp(clock)
    ids = [payments.accept() for _ in range(QUEUED)]
    breaker = Breaker(CONCURRENCY, Backoff(0.5, 30, lambda _low, high: high), clock)
    connector = payments.connector(psp, concurrency=CONCURRENCY, breaker=breaker, sleep=clock.sleep)
    began = clock()
    with running(connector):
        payments.wait_ended(*ids)
    assert clock() - began > DOWN_SECONDS
    assert {payments.record(i)["status"] for i in ids} == {"captured"}
    assert psp.down_calls <= CONCURRENCY + 5
    assert 1 <= psp.probes <= 40
    assert psp.up_calls == QUEUED, "the first call after the outage is enough"
    assert psp.ramp[0] == 1
    assert max(psp.ramp[:3]) <= 2
    assert 2 < max(psp.ramp) <= CONCURRENCY
    assert max(psp.calls.values()) <= 3
