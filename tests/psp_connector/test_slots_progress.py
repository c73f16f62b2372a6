"""No slot stays free while a first call waits that should have it."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.psp_connector.records import Work
from services.psp_connector.slots import Slots
from tests.psp_connector.payments import work
from tests.psp_connector.test_slots import Clock, occupied

STEP_SECONDS = 0.01


class View:
    """One partition: what its merchants still request, and its calls in flight."""

    def __init__(self, slots: Slots, number: int) -> None:
        self.slots = slots
        self.requested: dict[str, int] = {}
        self.calls: list[Work] = []
        self._number = number
        self._count = 0

    def ask(self) -> None:
        """Starts the calls that it may, as the dispatcher does."""
        requested = {merchant: count for merchant, count in self.requested.items() if count}
        if not requested:
            return
        self.slots.wait(requested, 0)
        with self.slots.reserve(requested) as granted:
            new = [self._call(merchant) for merchant in granted.elements()]
            self.slots.occupy(new)
        self.calls += new

    def _call(self, merchant: str) -> Work:
        self.requested[merchant] -= 1
        self._count += 1
        return work(f"{self._number}-{self._count}", merchant)

    def release(self, calls: list[Work]) -> None:
        self.slots.release(calls)
        self.calls = [call for call in self.calls if call not in calls]


def disturb(views: list[View], random: Random) -> None:
    """Payments arrive in one partition, and calls end in another."""
    view = random.choice(views)
    for n in range(random.choice([0, 1, 3, 6, 14])):
        view.requested[f"m{n}"] = view.requested.get(f"m{n}", 0) + random.choice([1, 10])
    view = random.choice(views)
    view.release(random.sample(view.calls, min(len(view.calls), random.choice([0, 1, 3, 9]))))


@given(st.sampled_from([2, 4, 8, 12, 24]), st.sampled_from([2, 3, 4, 8]), st.integers(0, 10**6))
def test_a_partition_without_calls_gets_a_free_slot(calls_max: int, count: int, seed: int) -> None:
    """Whatever came before, and though all calls in flight hang from now on."""
    random = Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        first = Slots(lambda: calls_max)
        slots = [first, *(first.sibling() for _ in range(count - 1))]
        views = [View(one, number) for number, one in enumerate(slots)]
        for step in range(60):
            if step < 30:
                disturb(views, random)
            for view in random.sample(views, count):
                view.ask()
            clock.now += STEP_SECONDS
    held_up = [view for view in views if any(view.requested.values()) and not view.calls]
    assert not first.free or not held_up


class Traffic:
    """Payments whose calls take a known time, in steps; measures how long one waits for a slot."""

    def __init__(self, clock: Clock, views: list[View]) -> None:
        self._clock, self._views = clock, views
        self.seconds: dict[str, float] = {}
        """How long the calls of a merchant take."""
        self.floods: list[tuple[View, str]] = []
        """Merchants with more payments than they ever get slots."""
        self._ends: dict[str, float] = {}

    def step(self, random: Random) -> None:
        for view in self._views:
            now = self._clock.now
            view.release([call for call in view.calls if self._ends[call.entry_id] <= now])
        for view, merchant in self.floods:
            view.requested[merchant] = 60
        for view in random.sample(self._views, len(self._views)):
            view.ask()
            for call in view.calls:
                end = self._clock.now + self.seconds[call.merchant]
                self._ends.setdefault(call.entry_id, end)
        self._clock.now += STEP_SECONDS

    def wait_of(self, merchant: str, view: View, random: Random) -> float:
        """Seconds until the call of a new payment begins. At most 10 s."""
        view.requested[merchant], begin = 1, self._clock.now
        while view.requested[merchant] and self._clock.now < begin + 10:
            self.step(random)
        return self._clock.now - begin


@settings(max_examples=30)
@given(st.integers(1, 11), st.integers(0, 10**6))
def test_merchants_whose_calls_hang_hold_up_no_other_one(hanging: int, seed: int) -> None:
    """Not even of their partition, while others are busy: as long as they are fewer than slots."""
    random = Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        first = Slots(lambda: 12)
        views = [View(one, n) for n, one in enumerate([first, *(first.sibling() for _ in "abc")])]
        traffic = Traffic(clock, views)
        traffic.floods = [(views[0], f"hangs-{n}") for n in range(hanging)]
        traffic.floods += [(view, f"quick-{n}") for view in views[1:] for n in range(10)]
        traffic.seconds = {name: 5.0 if "hangs" in name else 0.3 for _, name in traffic.floods}
        traffic.seconds |= {"alice": 0.3}
        for _ in range(int(5 / STEP_SECONDS)):
            traffic.step(random)
        waits = [traffic.wait_of("alice", views[0], random) for _ in range(10)]
    assert max(waits) < 2.5


def test_partitions_above_their_share_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one whose first call has waited longer gets the slot."""
    clock = Clock(monkeypatch)
    here = Slots(lambda: 12)
    there, late = here.sibling(), here.sibling()
    calls = occupied(here, "becky", 6)
    calls += [call for name in ("bob", "eve", "fred") for call in occupied(there, name, 4)]
    assert (len(calls), here.free) == (12, 0)
    for view, merchant in ((here, "alice"), (there, "dave"), (late, "carol")):
        view.wait([merchant], 0)
        clock.now += STEP_SECONDS
    here.release(calls[:1])
    assert occupied(there, "dave", 1) == []
    assert len(occupied(here, "alice", 1)) == 1
