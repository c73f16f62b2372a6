from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.psp_connector.records import Work
from services.psp_connector.slots import Slots
from tests.psp_connector.payments import work


def shares(slots: Slots, requested: dict[str, int]) -> Counter[str]:
    with slots.reserve(requested) as granted:
        return granted


@given(st.integers(2, 64), st.integers(1, 1000))
def test_one_merchant_gets_most_slots_but_never_the_last(calls_max: int, requested: int) -> None:
    """One merchant gets at least half but leaves one for the next merchant."""
    slots = Slots(lambda: calls_max)
    granted = shares(slots, {"becky": requested})
    assert min(requested, calls_max // 2) <= granted["becky"] <= min(requested, calls_max - 1)
    slots.occupy(work(str(n), "becky") for n in range(granted["becky"]))
    assert shares(slots, {"becky": 1000, "alice": 1})["alice"]


def test_12_slots() -> None:
    """As in docs/transactions.md, one merchant gets 9, two get 5 each."""
    flood = 100
    assert shares(Slots(lambda: 12), {"a": flood}) == {"a": 9}
    assert shares(Slots(lambda: 12), {"a": flood, "b": flood}) == {"a": 5, "b": 5}
    assert shares(Slots(lambda: 12), dict.fromkeys("abc", flood)) == {"a": 4, "b": 4, "c": 3}
    assert shares(Slots(lambda: 1), {"a": flood, "b": flood}) == {"a": 1}


@given(
    st.integers(1, 16),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=12),
)
def test_partitions_share_the_slots(calls_max: int, rounds: list[tuple[int, int]]) -> None:
    """Calls never exceed slots; a free one goes to a partition below its even share."""
    first = Slots(lambda: calls_max)
    views = [first, *(first.sibling() for _ in range(3))]
    works: list[Work] = []
    for number, count in rounds:
        with views[number].reserve({f"{number}-{m}": 1 for m in range(count)}) as granted:
            new = [work(f"{len(works)}-{m}", m) for m in granted]
            assert granted.total() <= calls_max - len(works)
            views[number].occupy(new)
        works += new
    assert views[0].wait_idle(0) == len(works)


def test_a_partition_that_waits_gets_the_next_free_slot() -> None:
    """A busy partition uses all slots until another asks, then none until both are even."""
    busy = Slots(lambda: 4)
    late = busy.sibling()
    flood = dict.fromkeys("abcd", 1)
    with busy.reserve(flood) as granted:
        works = [work(m, m) for m in granted]
        busy.occupy(works)
    assert len(works) == 4
    with late.reserve({"z": 1}) as granted:
        assert not granted
    busy.release(works[:1])
    assert busy.free == late.free == 1
    assert (shares(busy, {"i": 1}), shares(late, {"z": 1})) == ({}, {"z": 1})


def occupied(slots: Slots, merchant: str, count: int = 60) -> list[Work]:
    """Starts as many calls of the merchant as it may have."""
    with slots.reserve({merchant: count}) as granted:
        works = [work(f"{merchant}-{n}", merchant) for n in range(granted[merchant])]
        slots.occupy(works)
    return works


@given(st.integers(2, 64), st.integers(1, 3))
def test_a_merchant_is_not_held_up_by_another_one_of_its_partition(
    calls_max: int, others: int
) -> None:
    """It gets the last free slot, though others claim what its partition has above its share."""
    here = Slots(lambda: calls_max)
    views = [here.sibling() for _ in range(others)]
    occupied(here, "becky")
    for number, view in enumerate(views):
        occupied(view, f"carol-{number}")
    assert shares(here, {"becky": 60, "alice": 1})["alice"] == (1 if here.free else 0)
    assert here.free or calls_max < 9 or others > 1


class Clock:
    """Replaces the monotonic clock; stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("services.psp_connector.slots.time.monotonic", lambda: self.now)


def asked(slots: Slots, *merchants: str) -> list[str]:
    """Starts a call of each merchant that may have one; returns them."""
    with slots.reserve(dict.fromkeys(merchants, 2)) as granted:
        slots.occupy(work(f"{merchant}-0", merchant) for merchant in granted)
    return list(granted)


def filled(here: Slots, there: Slots) -> list[Work]:
    """Fills all 12 slots: 9 calls of becky's here, one each of three merchants there."""
    assert len(occupied(here, "becky")) == 9
    quick = [call for n in range(3) for call in occupied(there, f"quick-{n}", 1)]
    assert not here.free
    return quick


def test_a_partition_exceeds_its_share_only_for_first_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One at a time; none of a merchant that has a call in flight."""
    Clock(monkeypatch)
    here = Slots(lambda: 12)
    there = here.sibling()
    there.release(occupied(there, "carol")[1:])
    assert len(occupied(here, "becky")) == 4, "of 6, while carol waits"
    assert asked(here, *"abcde") == ["a", "b"]
    assert asked(here, *"cdef") == ["c"]
    assert asked(here, "becky", "a") == []
    assert asked(here, *"def") == ["d"]
    assert here.free == 3


def test_only_first_calls_have_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merchant that has a call in flight, even since this moment, holds up no first call."""
    clock = Clock(monkeypatch)
    here = Slots(lambda: 12)
    there = here.sibling()
    quick = filled(here, there)
    clock.now += 1
    there.wait(["dave"], 0)
    there.release(quick[:1])
    assert asked(there, "dave") == ["dave"]
    there.release(quick[1:2])
    assert shares(here, {"alice": 1}) == {"alice": 1}
    there.wait(["dave"], 0)
    assert shares(here, {"alice": 1}) == {"alice": 1}


def test_a_first_call_waits_for_all_that_have_waited_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often each asks; a slot beyond theirs is free at once."""
    clock = Clock(monkeypatch)
    here = Slots(lambda: 12)
    others = [here.sibling() for _ in range(3)]
    quick = filled(here, others[0])
    for _ask in range(2):
        for view in (others[1], others[2], here):
            view.wait(["alice"], 0)
            clock.now += 0.01
    others[0].release(quick[:2])
    assert asked(here, "alice") == [], "two have waited longer"
    others[0].release(quick[2:])
    assert asked(here, "alice") == ["alice"]


def test_a_merchant_that_waits_for_long_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before those of partitions below their share, with and without calls in flight."""
    clock = Clock(monkeypatch)
    here = Slots(lambda: 12)
    there = here.sibling()
    quick = filled(here, there)
    here.wait(["alice"], 0)
    clock.now += 0.09
    here.wait(["alice"], 0)
    there.release(quick[:1])
    assert shares(there, {"quick-3": 1}) == {"quick-3": 1}
    clock.now += 0.02
    assert not shares(there, {"quick-3": 1})
    there.release(quick[1:2])
    assert shares(there, {"quick-3": 1}) == {"quick-3": 1}
    assert not shares(there, {"quick-2": 1})
    assert asked(here, "alice") == ["alice"]


def test_after_a_long_call_others_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its partition, for as long as that call took, whatever a shorter one took."""
    clock = Clock(monkeypatch)
    slots = Slots(lambda: 4)
    calls = [work("long", "becky"), work("short", "becky")]
    slots.occupy(calls[:1])
    clock.now = 4.0
    slots.occupy(calls[1:])
    clock.now = 5.0
    slots.release(calls)
    for clock.now in (5.0, 9.9):
        assert list(shares(slots, {"becky": 1, "alice": 1})) == ["alice", "becky"]
    clock.now = 10.1
    assert list(shares(slots, {"becky": 1, "alice": 1})) == ["becky", "alice"]
    assert list(shares(slots, {"alice": 1, "becky": 1})) == ["alice", "becky"]


def test_a_deferral_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call during which the connector was suspended may have taken minutes."""
    clock = Clock(monkeypatch)
    slots = Slots(lambda: 2)
    becky = occupied(slots, "becky", 1)
    clock.now = 60.0
    slots.release(becky)
    clock.now = 64.9
    assert list(shares(slots, {"becky": 1, "alice": 1})) == ["alice", "becky"]
    clock.now = 65.1
    assert list(shares(slots, {"becky": 1, "alice": 1})) == ["becky", "alice"]


def test_after_a_long_call_other_partitions_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as that call took: then it does not wait for those that came later."""
    clock = Clock(monkeypatch)
    here = Slots(lambda: 4)
    there = here.sibling()
    calls = [occupied(here, name, 1) for name in ("dave", "eve", "becky")]
    quick = occupied(there, "quick", 1)
    for seconds in (4.9, 4.95):
        clock.now = seconds
        here.wait(["becky", "frank"], 0)
        clock.now = seconds + 0.01
        there.wait(["late"], 0)
    here.release(calls[2])
    clock.now = 5.02
    with here.reserve({"becky": 1}) as granted:
        assert not granted
    assert shares(there, {"late": 1}) == {"late": 1}
    there.wait(["late"], 0)
    for clock.now in (9.85, 9.93):
        here.wait(["becky"], 0)
        there.wait(["late"], 0)
    there.release(quick)
    there.wait(["later"], 0)
    assert shares(here, {"becky": 1}) == {"becky": 1}


def test_partitions_with_waiting_merchants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with its share or more waits for those that have waited longer, as long as they ask."""
    clock = Clock(monkeypatch)
    here = Slots(lambda: 12)
    there = here.sibling()
    quick = filled(here, there)
    for _ask in range(2):
        here.wait(["becky", "alice", "dave"], 0)
        clock.now += 0.02
        there.wait(["quick-3"], 0)
    clock.now += 0.01
    here.wait(["becky", "alice", "dave"], 0)
    there.release(quick[:1])
    waiting = {"becky": 60, "alice": 1, "dave": 1}
    with here.reserve(waiting) as granted:
        assert granted == {"alice": 1}
        here.occupy([work("alice", "alice")])
    there.release(quick[1:2])
    for _ask in range(2):
        assert not shares(here, waiting), "now the other one has waited longer"
    clock.now += 0.2
    quick = occupied(there, "quick-4", 1)
    there.wait(["quick-3"], 0)
    there.release(quick)
    clock.now += 0.01
    for _ask in range(2):
        assert not shares(here, waiting), "it has not asked for a while"
    clock.now += 0.1
    assert shares(here, waiting) == {"dave": 1}, "the other one asks no more"
