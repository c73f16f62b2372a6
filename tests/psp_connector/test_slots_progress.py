"""No slot stays free while a first call waits that should have it."""

from random import Random

import pytest
from hypothesis import given
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
