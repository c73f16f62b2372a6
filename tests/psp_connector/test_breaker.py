from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import FAILURES_MAX, RETURN_SECONDS_MAX, Breaker


class Timer:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def longest(_low: float, high: float) -> float:
    return high


def test_backoff_doubles_up_to_its_bound() -> None:
    """Without jitter's luck: 0.5, 1, 2, … and 60 at the most."""
    backoff = Backoff(0.5, 60, longest)
    assert [0.5, 1, 2, 4, 8, 16, 32, 60, 60] == [backoff.delay_seconds(n) for n in range(1, 10)]


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 3600))
def test_backoff_stays_within_its_bounds(attempt: int, luck: float, asked: float) -> None:
    """Never shorter than asked for, never longer than the bound or what was asked for."""
    backoff = Backoff(0.5, 60, lambda low, high: low + luck * (high - low))
    assert asked <= backoff.delay_seconds(attempt, asked) <= max(60, asked)


def test_it_opens_after_failures_in_a_row() -> None:
    """One good answer in between starts the count anew."""
    breaker = Breaker(8, Backoff(1, 30, longest), Timer())
    for _ in range(FAILURES_MAX - 1):
        assert not breaker.failed()
    breaker.succeeded()
    for _ in range(FAILURES_MAX - 1):
        assert not breaker.failed()
    assert 8 == breaker.allowed
    assert breaker.failed()
    assert 0 == breaker.allowed


def opened(timer: Timer) -> Breaker:
    breaker = Breaker(8, Backoff(1, 30, longest), timer)
    for _ in range(FAILURES_MAX):
        breaker.failed()
    return breaker


def test_it_asks_less_and_less_often() -> None:
    """A PSP down for ten minutes is asked some two dozen times, not thousands."""
    timer = Timer()
    breaker = opened(timer)
    asked: list[float] = []

    def answers() -> bool:
        asked.append(timer.now)
        return False

    for tenth in range(6000):
        timer.now = tenth / 10
        assert not breaker.probe(answers)
    assert 20 <= len(asked) <= 30
    assert 30 == round(asked[-1] - asked[-2])


def test_it_comes_back_gently() -> None:
    """One call, then two, four, eight: no flood on a PSP that just returned."""
    timer = Timer()
    breaker = opened(timer)
    timer.now = 2
    assert breaker.probe(lambda: True)
    allowed = [breaker.allowed]
    for _ in range(4):
        breaker.succeeded()
        allowed.append(breaker.allowed)
    assert [1, 2, 4, 8, 8] == allowed


def test_a_failure_while_coming_back_opens_it_again() -> None:
    """The first call that fails then is enough."""
    timer = Timer()
    breaker = opened(timer)
    timer.now = 2
    breaker.probe(lambda: True)
    assert breaker.failed()
    assert 0 == breaker.allowed
    assert not breaker.probe(lambda: True), "not at once"
    timer.now = 4
    assert breaker.probe(lambda: True)


def test_charges_that_fail_by_themselves_do_not_hold_the_others_up() -> None:
    """While the PSP answers, it is tried again within 3 s, however often a charge failed."""
    timer = Timer()
    breaker = opened(timer)
    for _charge in range(100):
        timer.now += RETURN_SECONDS_MAX
        assert breaker.probe(lambda: True)
        breaker.failed()


@given(st.lists(st.sampled_from(["ok", "fail", "probe-ok", "probe-fail", "tick"]), max_size=60))
def test_allowed_calls_stay_within_bounds(steps: list[str]) -> None:
    """Whatever happens, between none and `concurrency` calls are allowed, and a way back exists."""
    timer = Timer()
    breaker = Breaker(4, Backoff(1, 30, longest), timer)
    for step in steps:
        if step == "ok":
            breaker.succeeded()
        elif step == "fail":
            breaker.failed()
        elif step == "tick":
            timer.now += 10
        else:
            breaker.probe(lambda: step == "probe-ok")  # noqa: B023  called at once
        assert 0 <= breaker.allowed <= 4
    timer.now += 60
    breaker.probe(lambda: True)
    assert breaker.allowed > 0
