"""The table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.figures import Result, change

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.figures import Run

_HEAD = (
    "item",
    "value",
    "floor",
    "figure",
    "quartiles",
    "extremes",
    "goal",
    "beyond",
    "",
    "before",
)
_MARKS = {"beyond": "++", "goal": "+", "missed": "MISSED", "": ""}


def table(run: Run, before: Mapping[str, Result]) -> str:
    """A line per row, then the machine and the failures."""
    lines = [_cells(result, before.get(result.name)) for result in run.results]
    lines.insert(0, _HEAD)
    text = _columns(lines)
    for failure in run.failures:
        text += f"\n{failure.name}: not measured: {failure.reason}"
    notes = "\n".join(_note(result) for result in run.results)
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    return f"{text}\n\n{notes}\n\n{run.mode}, {run.seconds:.0f} s, {machine}\n"


def _cells(result: Result, before: Result | None) -> tuple[str, ...]:
    spread, goal = result.figure, result.goal
    sign = "<= " if goal and goal.at_most else ""
    changed = change(result, before)
    return (
        result.title,
        f"{number(result.value)} {result.unit}",
        "" if result.floor is None else number(result.floor),
        figure(result, spread.median),
        f"{figure(result, spread.q1)}..{figure(result, spread.q3)}",
        f"{figure(result, spread.low)}..{figure(result, spread.high)}",
        f"{sign}{figure(result, goal.goal)}" if goal else "",
        f"{sign}{figure(result, goal.beyond)}" if goal and goal.beyond is not None else "",
        _MARKS[result.verdict],
        "" if changed is None else f"{changed:+.0%}",
    )


def figure(result: Result, value: float) -> str:
    """A figure, or a goal for it, as the table shows it."""
    if result.kind == "difference":
        return f"{value:+.3g}"
    return f"{value:.2f}" if result.kind == "ratio" else number(value)


def number(value: float) -> str:
    """At least three digits, with thousands separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _columns(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([shown[0], "-" * max(map(len, shown)), *shown[1:]])


def _note(result: Result) -> str:
    details = ", ".join(
        f"{name} {number(value) if isinstance(value, float | int) else value}"
        for name, value in result.details.items()
    )
    against = f"against {result.against}; " if result.against else ""
    return f"{result.name}: {against}{details or 'no details'}; {result.rounds} rounds"
