"""Rows of the table, their measured results, and results saved by earlier runs."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic.dataclasses import dataclass

Details = dict[str, float | str]
Sample = tuple[float, float | None]
"""One round: the value, and the floor measured next to it, if the row has one."""


class MeasureError(Exception):
    """The measurement would be invalid; the message says why."""


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
    kind: Literal["ratio", "difference"] = "ratio"
    """How a value is compared with its floor; without a floor, the figure is the value."""

    def result(self, samples: Sequence[Sample], details: Details) -> "Result":
        floors = [floor for _, floor in samples if floor is not None]
        return Result(
            **vars(self),
            value=statistics.median(value for value, _ in samples),
            floor=statistics.median(floors) if floors else None,
            figures=[self._figure(*sample) for sample in samples],
            details=details,
        )

    def _figure(self, value: float, floor: float | None) -> float:
        if floor is None:
            return value
        return value / floor if self.kind == "ratio" else value - floor


@dataclass(frozen=True, kw_only=True)
class Result(Row):
    """One measured row; value and floor are medians, in its unit."""

    value: float
    floor: float | None
    figures: list[float]
    """Value to floor of each round: ratio, difference, or the value itself."""
    details: Details

    @property
    def figure(self) -> float:
        """The median, which is compared with the goal."""
        return statistics.median(self.figures)

    def reaches(self, bound: float | None) -> bool:
        if bound is None:
            return False
        return self.figure <= bound if self.at_most else self.figure >= bound


class Run(BaseModel):
    """The result of one run, as saved to a file."""

    mode: str
    started_at: str
    seconds: float = 0
    machine: dict[str, str]
    results: list[Result] = Field(default_factory=list)
    failures: dict[str, str] = Field(default_factory=dict)
    """Why a row could not be measured, by its name."""


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
