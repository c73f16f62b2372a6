from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import FAILURES_MAX, Breaker


class Timer:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def longest(_low: float, high: float) -> float:
    return high


def test_backoff_doubles_up_to_its_bound() -> None:
    """Without jitter's luck: 0.5, 1, 2, … and 60 at the most."""
    backoff = Backoff(0.5, 60, longest)
    assert [backoff.delay_seconds(n) for n in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 3600))
def test_backoff_stays_within_its_bounds(attempt: int, luck: float, asked: float) -> None:
    """Never shorter than asked for, never longer than the bound or what was asked for."""
    backoff = Backoff(0.5, 60, lambda low, high: low + luck * (high - low))
    assert asked <= backoff.delay_seconds(attempt, asked) <= max(60, asked)


def yes() -> bool:
    return True


def no() -> bool:
    return False


def test_failures_in_a_row_make_it_ask_and_one_answer_starts_the_count_again() -> None:
    """Only every fifth failure in a row has the PSP asked."""
    breaker = Breaker(8, Backoff(1, 30, longest), Timer())
    for _ in range(2):
        assert [breaker.failed() for _ in range(FAILURES_MAX - 1)] == [False] * 4
        breaker.succeeded()
    assert [breaker.failed() for _ in range(FAILURES_MAX)] == [False] * 4 + [True]
    assert [breaker.failed() for _ in range(9)] == [False] * 9, "one thread asks at a time"
    assert breaker.allowed == 8


def test_it_opens_only_when_the_psp_itself_does_not_answer() -> None:
    """Payments that fail by themselves, however many, do not pause charging."""
    breaker = Breaker(8, Backoff(1, 30, longest), Timer())
    for _ in range(100):
        if breaker.failed():
            assert not breaker.check(yes)
    assert breaker.allowed == 8
    while not breaker.failed():
        pass
    assert breaker.check(no)
    assert breaker.allowed == 0


def opened(timer: Timer) -> Breaker:
    breaker = Breaker(8, Backoff(1, 30, longest), timer)
    while not breaker.failed():
        pass
    assert breaker.check(no)
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
    assert round(asked[-1] - asked[-2]) == 30


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
    assert allowed == [1, 2, 4, 8, 8]


def test_a_failure_while_coming_back_makes_it_ask_at_once() -> None:
    """The first call that fails then is enough; an answer lets the next two through."""
    timer = Timer()
    breaker = opened(timer)
    timer.now = 2
    breaker.probe(yes)
    assert breaker.failed()
    assert not breaker.check(yes)
    assert breaker.allowed == 2
    assert breaker.failed()
    assert breaker.check(no)
    assert breaker.allowed == 0
    assert not breaker.probe(yes), "not at once"
    timer.now = 4
    assert breaker.probe(yes)


@given(
    st.lists(
        st.sampled_from(["ok", "fail", "fail-down", "probe-ok", "probe-fail", "tick"]), max_size=60
    )
)
def test_allowed_calls_stay_within_bounds(steps: list[str]) -> None:
    """Whatever happens, between none and `concurrency` calls are allowed, and a way back exists."""
    timer = Timer()
    breaker = Breaker(4, Backoff(1, 30, longest), timer)
    for step in steps:
        if step == "ok":
            breaker.succeeded()
        elif step.startswith("fail"):
            if breaker.failed():
                breaker.check(lambda: step == "fail")  # noqa: B023  called at once
        elif step == "tick":
            timer.now += 10
        else:
            breaker.probe(lambda: step == "probe-ok")  # noqa: B023  called at once
        assert 0 <= breaker.allowed <= 4
    timer.now += 60
    breaker.probe(lambda: True)
    assert breaker.allowed > 0
