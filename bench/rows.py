"""The rows of the table and their shared state."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from bench import stacks
from bench.figures import Result, Sample, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.figures import Goal, Kind
    from bench.plan import Plan
    from bench.stacks import Platform

    Details = dict[str, float | str]

T = TypeVar("T")


class OutOfTime(Exception):
    """The time for all rows is used up."""


@dataclass
class Bench:
    """One run of the benchmark: its size, its folder, and stacks that live until it ends."""

    plan: Plan
    folder: Path
    tell: Callable[[str], None]
    deadline: float
    ending: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    kept: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, measure: Callable[[], T]) -> T:
        """The result or error of `measure`, run once and shared by several rows."""
        if name not in self.kept:
            try:
                self.kept[name] = measure()
            except Exception as error:
                self.kept[name] = error
                raise
        found: T = self.kept[name]
        if isinstance(found, Exception):
            raise found
        return found

    def check_time(self) -> None:
        """Raises OutOfTime if nothing more may start."""
        if time.monotonic() > self.deadline:
            raise OutOfTime

    def rounds(self, count: int) -> Iterator[int]:
        """Numbers from 1; ends early when time is up, and raises if there was no time for one.

        A round does not start if the longest one so far would not fit.
        """
        longest_seconds = 0.0
        for number in range(1, count + 1):
            began = time.monotonic()
            if began + longest_seconds > self.deadline:
                if number == 1:
                    raise OutOfTime
                return
            yield number
            longest_seconds = max(longest_seconds, time.monotonic() - began)

    @cached_property
    def platform(self) -> Platform:
        """The measured stack; its connector is stopped."""
        return self._start(floor=False)

    @cached_property
    def floor(self) -> Platform:
        """The stack with empty apps; its connector is stopped."""
        return self._start(floor=True)

    def _start(self, *, floor: bool) -> Platform:
        self.tell("starting the " + ("floor: the stack with empty apps" if floor else "stack"))
        platform = self.ending.enter_context(stacks.running(self.folder, floor=floor))
        platform.rest("psp-connector")
        return platform


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    title: str
    against: str
    unit: str
    kind: Kind
    goal: Goal | None
    measure: Callable[[Bench, Row], Result]

    def result(self, samples: list[Sample], details: Details | None = None) -> Result:
        """This row with its samples."""
        value, floor, figure = summary(samples, self.kind)
        return Result(
            name=self.name, title=self.title, against=self.against, unit=self.unit,
            kind=self.kind, value=value, floor=floor, figure=figure, rounds=len(samples),
            goal=self.goal, details=details or {},
        )  # fmt: skip


def interleaved(
    bench: Bench, row: Row, value: Callable[[], float], floor: Callable[[], float]
) -> list[Sample]:
    """Measures value and floor in turn, so that noise affects both."""
    samples = []
    for number in bench.rounds(bench.plan.rounds):
        sample = Sample(value=value(), floor=floor())
        samples.append(sample)
        tell_sample(bench, row, number, bench.plan.rounds, sample)
    return samples


def tell_sample(bench: Bench, row: Row, number: int, rounds: int, sample: Sample) -> None:
    """A line of progress."""
    against = "" if sample.floor is None else f" against {sample.floor:,.4g}"
    figure = f"{sample.figure(row.kind):.3g}"
    bench.tell(
        f"{row.name:<16} {number}/{rounds}  {sample.value:,.4g}{against} {row.unit}  {figure}"
    )
