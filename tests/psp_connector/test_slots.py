from collections import Counter

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
    flood = dict.fromkeys("abcdefgh", 1)
    with busy.reserve(flood) as granted:
        works = [work(m, m) for m in granted]
        busy.occupy(works)
    assert len(works) == 4
    with late.reserve({"z": 1}) as granted:
        assert not granted
    busy.release(works[:1])
    assert (busy.free, late.free) == (0, 1)
    busy.park(works[1])
    assert late.free == 2, "an unsaved result holds no slot of another partition"
