"""A call whose result cannot be saved holds no slot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.psp_connector.slots import Slots
from tests.psp_connector.payments import work
from tests.psp_connector.test_slots import Clock, asked, occupied, shares


def test_a_partition_without_claims_takes_nothing_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It got all it asked for, or could not use more: its results cannot be saved."""
    clock = Clock(monkeypatch)
    here = Slots(lambda: 12)
    there = here.sibling()
    occupied(there, "carol", 1)
    becky = occupied(here, "becky")
    assert len(becky) == 8
    here.release(becky)
    there.release([work("carol-0")])
    clock.now += 1
    fill(there)
    clock.now += 1
    there.wait(["late"], 0)
    assert len(occupied(here, "becky")) == 9


def fill(slots: Slots) -> None:
    """Ends so many calls whose results cannot be saved that it begins none."""
    for number in range(4096):
        assert slots.free == 12
        slots.occupy([one := work(f"{number}-parked", f"{number}")])
        slots.park(one)
    assert slots.free == 0


def test_an_unsaved_result_holds_no_slot() -> None:
    """Neither of its partition nor of others, up to a bound; its merchant gets fewer."""
    here = Slots(lambda: 12)
    there = here.sibling()
    fill(there)
    assert here.free == 12
    there.release([work("7-parked")])
    assert there.free == 12
    for one in occupied(here, "becky"):
        here.park(one)
    assert shares(here, {"becky": 99, "carol": 99}) == {"carol": 9}
    assert len(asked(here, *"abcdefghijklm")) == 12


@given(st.integers(2, 64))
def test_a_merchant_has_fewer_unsaved_results_than_slots(calls_max: int) -> None:
    """However often it asks: the bound of a partition is for many merchants."""
    slots, count = Slots(lambda: calls_max), 0
    for _ask in range(calls_max):
        for _ in range(shares(slots, {"becky": 99})["becky"]):
            slots.occupy([one := work(f"{count}", "becky")])
            slots.park(one)
            count += 1
    assert 0 < count < calls_max


def test_a_result_that_waits_to_be_saved_defers_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the call counts, not for how long Redis was unavailable after it."""
    clock = Clock(monkeypatch)
    slots = Slots(lambda: 1)
    (call,) = occupied(slots, "becky")
    clock.now = 1.0
    slots.park(call)
    clock.now = 1.5
    slots.release([call])
    assert list(shares(slots, {"becky": 1, "alice": 1})) == ["alice"]
    clock.now = 2.1
    assert list(shares(slots, {"becky": 1, "alice": 1})) == ["becky"]
