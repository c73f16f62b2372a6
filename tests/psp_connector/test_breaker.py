from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import FAILURES_MAX, Breaker


class Psp:
    """A PSP that is up or down, a clock, and the times of its probes."""

    def __init__(self, *, up: bool) -> None:
        self.up = up
        self.now = 0.0
        self.asked: list[float] = []

    def timer(self) -> float:
        return self.now

    def is_available(self) -> bool:
        self.asked.append(self.now)
        return self.up


def longest(_low: float, high: float) -> float:
    return high


def breaker_of(psp: Psp) -> Breaker:
    return Breaker(8, Backoff(1, 30, longest), psp.timer)


def failing(breaker: Breaker, psp: Psp, count: int) -> list[bool]:
    """Records this many consecutive failures; returns for each whether the PSP was probed."""
    asks = []
    for _ in range(count):
        asks.append(breaker.failed())
        if asks[-1]:
            breaker.check(psp.is_available)
    return asks


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 3600))
def test_backoff_stays_within_its_bounds(attempt: int, luck: float, asked: float) -> None:
    """The delay doubles up to its bound, and is never below Retry-After."""
    backoff = Backoff(0.5, 60, lambda low, high: low + luck * (high - low))
    assert asked <= backoff.delay_seconds(attempt, asked) <= max(60, asked)
    doubling = Backoff(0.5, 60, longest)
    assert [doubling.delay_seconds(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 32, 60]


def test_it_opens_only_if_a_probe_fails() -> None:
    """Every fifth consecutive failure probes the PSP; payments that fail alone do not open it."""
    psp = Psp(up=True)
    breaker = breaker_of(psp)
    fifth = [False] * (FAILURES_MAX - 1) + [True]
    assert failing(breaker, psp, 10) == fifth * 2
    failing(breaker, psp, 4)
    breaker.succeeded()
    psp.up = False
    assert failing(breaker, psp, 4) == [False] * 4
    assert breaker.allowed == 8
    assert failing(breaker, psp, 5) == [True] + [False] * 4, "open, it need not ask"
    assert breaker.allowed == 0


def test_one_thread_probes_at_a_time() -> None:
    """Failures during a probe do not start another."""
    breaker = breaker_of(Psp(up=True))
    assert [breaker.failed() for _ in range(14)] == [False] * 4 + [True] + [False] * 9


def test_it_recovers_gradually() -> None:
    """It allows one call, then two, four, eight; a failure probes at once and may reopen it."""
    psp = Psp(up=False)
    breaker = breaker_of(psp)
    failing(breaker, psp, 5)
    for _ in range(2):
        assert not breaker.is_due()
        psp.now, psp.up = psp.now + 30, True
        assert breaker.is_due()
        assert breaker.check(psp.is_available)
        allowed = [breaker.allowed]
        for _ in range(2):
            breaker.succeeded()
            allowed.append(breaker.allowed)
        assert failing(breaker, psp, 1) == [True]
        assert [*allowed, breaker.allowed] == [1, 2, 4, 8]
        breaker.succeeded()
        assert breaker.allowed == 8
        failing(breaker, psp, 4)
        psp.up = False
        failing(breaker, psp, 1)
        assert breaker.allowed == 0


@given(st.lists(st.sampled_from(["succeed", "fail", "go up", "go down", "wait"]), max_size=60))
def test_allowed_calls_stay_within_bounds(steps: list[str]) -> None:
    """Between none and `concurrency` calls are allowed, and it can always recover."""
    psp = Psp(up=True)
    breaker = breaker_of(psp)
    for step in steps:
        if step == "succeed":
            breaker.succeeded()
        elif step == "fail":
            failing(breaker, psp, 1)
        elif step == "wait":
            psp.now += 10
        else:
            psp.up = step == "go up"
        if breaker.is_due():
            breaker.check(psp.is_available)
        assert 0 <= breaker.allowed <= 8
    psp.now, psp.up = psp.now + 60, True
    if breaker.is_due():
        breaker.check(psp.is_available)
    assert breaker.allowed > 0
