import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import FAILURES_MAX, Breaker


def longest(_low: float, high: float) -> float:
    return high


class Psp:
    """A PSP that is up or down, its breaker, a clock, and the times of its probes."""

    def __init__(self, *, up: bool) -> None:
        self.up = up
        self.now = 0.0
        self.probed_at: list[float] = []
        self.breaker = Breaker(8, Backoff(1, 30, longest), lambda: self.now)

    def is_available(self) -> bool:
        self.probed_at.append(self.now)
        return self.up

    def fail(self, count: int) -> list[bool]:
        """Records consecutive failures; returns for each whether the PSP was probed."""
        asks = []
        for _ in range(count):
            asks.append(self.breaker.failed())
            if asks[-1]:
                self.breaker.check(self.is_available)
        return asks


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 3600))
def test_backoff_stays_within_its_bounds(attempt: int, fraction: float, requested: float) -> None:
    """The delay doubles up to its bound, and is never below Retry-After."""
    backoff = Backoff(0.5, 60, lambda low, high: low + fraction * (high - low))
    assert requested <= backoff.delay_seconds(attempt, requested) <= max(60, requested)
    doubling = Backoff(0.5, 60, longest)
    assert [doubling.delay_seconds(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 32, 60]


def test_it_opens_only_if_a_probe_fails() -> None:
    """Every fifth consecutive failure probes the PSP; payments that fail alone do not open it."""
    psp = Psp(up=True)
    fifth = [False] * (FAILURES_MAX - 1) + [True]
    assert psp.fail(10) == fifth * 2
    psp.fail(4)
    psp.breaker.succeeded()
    psp.up = False
    assert psp.fail(4) == [False] * 4
    assert psp.breaker.calls_max == 8
    assert psp.fail(5) == [True] + [False] * 4, "open, it need not ask"
    assert psp.breaker.calls_max == 0


def test_a_last_attempt_probes_at_once() -> None:
    """Unless it is open. Simultaneous ones each probe, and delay the next probe only once."""
    psp = Psp(up=False)
    breaker = psp.breaker
    assert [breaker.failed(is_last=True) for _ in range(3)] == [True] * 3

    def ends_after_another() -> bool:
        assert not breaker.calls_max or breaker.check(lambda: False)
        return False

    assert not breaker.check(ends_after_another), "the other one has opened it"
    assert breaker.calls_max == 0
    assert not breaker.failed(is_last=True)
    psp.now = 1
    assert breaker.is_due()
    assert Psp(up=True).fail(1) == [False]


def test_one_failed_probe_may_be_chance() -> None:
    """Only a second one opens the breaker. While it is open, each probe counts."""
    breaker, answers = Psp(up=True).breaker, iter([False, True, False, False, False, True])
    changes = [breaker.check(lambda: next(answers)) for _ in range(4)]
    assert changes == ["", "opened", "", "closed"]


def test_one_thread_probes_at_a_time() -> None:
    """Neither failures nor other partitions start another during a probe; last attempts do."""
    breaker = Psp(up=True).breaker
    assert [breaker.failed() for _ in range(14)] == [False] * 4 + [True] + [False] * 9
    psp = Psp(up=False)
    psp.fail(FAILURES_MAX)
    psp.now += 1
    assert [psp.breaker.is_due() for _ in range(2)] == [True, False]


def test_probes_of_a_psp_that_is_down_become_rare() -> None:
    """In ten minutes it is probed at growing intervals, up to 30 s."""
    psp = Psp(up=False)
    psp.fail(FAILURES_MAX)
    for psp.now in range(600):
        if psp.breaker.is_due():
            psp.breaker.check(psp.is_available)
    waits = [after - before for before, after in itertools.pairwise(psp.probed_at)]
    assert waits == [0, 1, 2, 4, 8, 16] + [30] * 18


def test_it_recovers_gradually() -> None:
    """It allows one call, then two, four, eight; a failure probes at once and may reopen it."""
    psp = Psp(up=False)
    psp.fail(5)
    for _ in range(2):
        psp.now, psp.up = psp.now + 1, True
        assert psp.breaker.is_due()
        assert psp.breaker.check(psp.is_available)
        limits = [psp.breaker.calls_max]
        for _ in range(2):
            psp.breaker.succeeded()
            limits.append(psp.breaker.calls_max)
        assert psp.fail(1) == [True]
        assert [*limits, psp.breaker.calls_max] == [1, 2, 4, 8]
        psp.breaker.succeeded()
        assert psp.breaker.calls_max == 8
        psp.fail(4)
        psp.up = False
        psp.fail(1)
        assert psp.breaker.calls_max == 0
        assert not psp.breaker.is_due()


def test_calls_that_hang_do_not_keep_it_from_recovering() -> None:
    """Without a response it probes again, and allows twice as many calls, or none."""
    psp = Psp(up=False)
    psp.fail(FAILURES_MAX)
    psp.now, psp.up = 1, True
    limits = []
    for _ in range(20):
        if psp.breaker.is_due():
            psp.breaker.check(psp.is_available)
        limits.append(psp.breaker.calls_max)
        psp.now += 0.1
    assert limits[::3][:4] == [1, 2, 4, 8]
    assert len(psp.probed_at) == 2 + 4, "closed, it need not ask"
    assert psp.fail(FAILURES_MAX)[-1]
    psp.up = False
    psp.fail(FAILURES_MAX)
    psp.now, psp.up = psp.now + 1, True
    assert psp.breaker.is_due()
    psp.breaker.check(psp.is_available)
    psp.breaker.succeeded()
    psp.now, psp.up = psp.now + 0.3, False
    assert psp.breaker.is_due()
    assert psp.breaker.check(psp.is_available) == "opened"
