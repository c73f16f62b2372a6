"""Rows of the table, their measured results, and results saved by earlier runs."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

Kind = Literal["ratio", "difference", "amount"]
Verdict = Literal["beyond", "goal", "missed"]
Details = dict[str, float | str]


class MeasureError(Exception):
    """The measurement would be invalid; the message says why."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Spread(_Model):
    """Median, quartiles and extremes of the figures of all rounds."""

    median: float
    low: float
    q1: float
    q3: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of at least one value."""
        # Quartiles need two values.
        q1, _, q3 = statistics.quantiles([*values] * (1 + (len(values) == 1)), method="inclusive")
        median = statistics.median(values)
        return cls(median=median, low=min(values), q1=q1, q3=q3, high=max(values))


class Sample(_Model):
    """One round: the value, and the floor measured next to it."""

    value: float
    floor: float | None = None

    def figure(self, kind: Kind) -> float:
        """The number that is compared with the goal."""
        if self.floor is None:
            return self.value
        return self.value / self.floor if kind == "ratio" else self.value - self.floor


@dataclass(frozen=True)
class Row:
    """One row of the table: its goal is a bound for the figure, and `beyond` a better one."""

    name: str
    title: str
    unit: str
    goal: float
    beyond: float | None = None
    at_most: bool = False
    """Whether less is better."""
    kind: Kind = "ratio"
    """How a value is compared with its floor; an amount has no floor."""

    def result(self, samples: Sequence[Sample], details: Details) -> "Result":
        """This row with the samples of at least one round."""
        floors = [sample.floor for sample in samples if sample.floor is not None]
        return Result(
            **vars(self),
            value=statistics.median(sample.value for sample in samples),
            floor=statistics.median(floors) if floors else None,
            figure=Spread.of([sample.figure(self.kind) for sample in samples]),
            rounds=len(samples),
            details=details,
        )


@dataclass(frozen=True, kw_only=True)
class Result(Row):
    """One measured row; value and floor are medians, in its unit."""

    value: float
    floor: float | None
    figure: Spread
    """Value to floor, round by round: ratio, difference, or the value itself."""
    rounds: int
    details: Details

    @property
    def verdict(self) -> Verdict:
        """Whether it reached its goal."""
        sign = -1 if self.at_most else 1
        figure = self.figure.median * sign
        if self.beyond is not None and figure >= self.beyond * sign:
            return "beyond"
        return "goal" if figure >= self.goal * sign else "missed"


class Failure(_Model):
    """A row that could not be measured, and why."""

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


def save(run: Run, folder: Path) -> Path:
    """Writes `<time>-<mode>.json`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.started_at.translate(dict.fromkeys(map(ord, ':-')))}-{run.mode}.json"
    path.write_text(run.model_dump_json(indent=1) + "\n")
    return path


def previous(folder: Path, mode: str) -> Mapping[str, Result]:
    """The newest result of each row in that mode, committed or not."""
    runs = [run for path in folder.glob("*.json") if (run := _read(path)) and run.mode == mode]
    runs.sort(key=lambda run: run.started_at)
    return {result.name: result for run in runs for result in run.results}


def _read(path: Path) -> Run | None:
    try:
        return Run.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        sys.stderr.write(f"bench: {path} is not a result of this benchmark; ignored\n")
        return None
