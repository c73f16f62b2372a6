from __future__ import annotations

import pytest

from bench.figures import Goal, Result, Sample, Spread, change, summary


def result(figure: float, kind: str = "ratio") -> Result:
    return Result.model_validate(
        {
            "name": "accept",
            "title": "accepting",
            "against": "nothing",
            "unit": "/s",
            "kind": kind,
            "value": 1,
            "floor": 1,
            "figure": Spread.of([figure]),
            "rounds": 1,
        }
    )


def test_the_spread_of_some_values() -> None:
    """Median, quartiles and extremes, whatever order the values came in."""
    spread = Spread(median=3, low=1, q1=2, q3=4, high=5)
    assert spread == Spread.of([5, 1, 4, 2, 3])


def test_the_spread_of_one_value() -> None:
    """A single round has a spread too."""
    assert Spread(median=7, low=7, q1=7, q3=7, high=7) == Spread.of([7])


def test_a_ratio_is_taken_round_by_round() -> None:
    """Noise that hits a value and its floor alike leaves the figure as it was."""
    samples = [Sample(value=50, floor=100), Sample(value=5, floor=10), Sample(value=30, floor=60)]
    value, floor, figure = summary(samples, "ratio")
    assert (value, floor) == (30, 60)
    assert (figure.low, figure.high) == (0.5, 0.5)


def test_a_difference_is_taken_round_by_round() -> None:
    """The same for what is compared by subtraction."""
    samples = [Sample(value=12, floor=10), Sample(value=105, floor=101)]
    assert summary(samples, "difference")[2].median == 3


def test_an_amount_needs_no_floor() -> None:
    """What speaks for itself is its own figure."""
    value, floor, figure = summary([Sample(value=200), Sample(value=210)], "amount")
    assert (value, floor, figure.median) == (205, None, 205)


@pytest.mark.parametrize(
    ("figure", "verdict"), [(0.49, "missed"), (0.5, "goal"), (0.64, "goal"), (0.65, "beyond")]
)
def test_a_goal_where_more_is_better(figure: float, verdict: str) -> None:
    """The goal itself is reached."""
    assert verdict == Goal(goal=0.5, beyond=0.65).verdict(figure)


@pytest.mark.parametrize(
    ("figure", "verdict"), [(251, "missed"), (250, "goal"), (181, "goal"), (180, "beyond")]
)
def test_a_goal_where_less_is_better(figure: float, verdict: str) -> None:
    """The same the other way round."""
    assert verdict == Goal(goal=250, beyond=180, at_most=True).verdict(figure)


def test_a_goal_with_nothing_beyond_it() -> None:
    """It is reached or missed, and that is all."""
    goal = Goal(goal=0.9)
    assert [goal.verdict(0.89), goal.verdict(5)] == ["missed", "goal"]


def test_the_change_since_before() -> None:
    """As a part of what it was; nothing where there is nothing to compare with."""
    assert change(result(0.5), result(0.4)).__round__(9) == 0.25  # type: ignore[union-attr]
    assert change(result(0.5), None) is None
    assert change(result(0.5), result(0.4, "difference")) is None
    assert change(result(0.5), result(0)) is None
