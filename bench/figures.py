"""Figures with their spread, compared with goals and an earlier run."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["ratio", "difference", "amount"]
Verdict = Literal["beyond", "goal", "missed", ""]


class Spread(BaseModel):
    """Median, quartiles and extremes of the figures of all rounds."""

    model_config = ConfigDict(frozen=True)

    median: float
    low: float
    q1: float
    q3: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of at least one value."""
        if len(values) == 1:
            q1 = q3 = values[0]
        else:
            q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(
            median=statistics.median(values), low=min(values), q1=q1, q3=q3, high=max(values)
        )


class Goal(BaseModel):
    """A bound for a figure."""

    model_config = ConfigDict(frozen=True)

    goal: float
    beyond: float | None = None
    at_most: bool = False
    """Whether less is better."""

    def verdict(self, figure: float) -> Verdict:
        """How far a figure got."""
        sign = -1 if self.at_most else 1
        if self.beyond is not None and figure * sign >= self.beyond * sign:
            return "beyond"
        return "goal" if figure * sign >= self.goal * sign else "missed"


class Result(BaseModel):
    """One row of the table."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    against: str
    """The name of the floor; empty if the value is judged by itself."""
    unit: str
    kind: Kind
    value: float
    """Median over the rounds, in `unit`."""
    floor: float | None
    """The floor's median over the rounds, in `unit`."""
    figure: Spread
    """Value to floor, round by round: ratio, difference in `unit`, or the value itself."""
    rounds: int
    goal: Goal | None = None
    details: dict[str, float | str] = Field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """How far it got; empty when it has no goal."""
        return self.goal.verdict(self.figure.median) if self.goal else ""


class Sample(BaseModel):
    """One round: the value, and the floor measured next to it."""

    model_config = ConfigDict(frozen=True)

    value: float
    floor: float | None = None

    def figure(self, kind: Kind) -> float:
        """The number that is compared with the goal."""
        if self.floor is None:
            return self.value
        return self.value / self.floor if kind == "ratio" else self.value - self.floor


def summary(samples: Sequence[Sample], kind: Kind) -> tuple[float, float | None, Spread]:
    """The medians of values and floors, and the spread of the figures."""
    floors = [sample.floor for sample in samples if sample.floor is not None]
    return (
        statistics.median(sample.value for sample in samples),
        statistics.median(floors) if floors else None,
        Spread.of([sample.figure(kind) for sample in samples]),
    )


class Failure(BaseModel):
    """A row that could not be measured, and why."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


class Run(BaseModel):
    """The result of one run, as saved to a file."""

    mode: str
    started_at: str
    seconds: float = 0
    machine: dict[str, str]
    results: list[Result] = Field(default_factory=list)
    failures: list[Failure] = Field(default_factory=list)


def change(now: Result, before: Result | None) -> float | None:
    """The relative change since an earlier run; None if not comparable."""
    if before is None or before.kind != now.kind or before.figure.median == 0:
        return None
    return now.figure.median / before.figure.median - 1
