"""The table for the terminal, and the chart."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pygal

from bench.results import Result, Run
from devtools.terminal import columns

_HEAD = (
    "item", "value", "floor", "figure", "quartiles", "extremes", "goal", "beyond", "", "before",
)  # fmt: skip
# Caps the longest bar, so that the others stay readable.
_SCORE_MAX = 2.5


def table(run: Run, before: Mapping[str, Result]) -> str:
    """A line per row, then failures, details and the machine."""
    cells = [_HEAD, *(_cells(result, before.get(result.name)) for result in run.results)]
    rows = columns(cells, right=range(1, len(_HEAD)))
    rows.insert(1, "-" * max(map(len, rows)))
    failures = [f"{name}: not measured: {reason}" for name, reason in run.failures.items()]
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    end = f"{run.mode}, {run.seconds:.0f} s, {machine}\n"
    return "\n".join([*rows, *failures, "", *map(_details, run.results), "", end])


def _cells(result: Result, before: Result | None) -> tuple[str, ...]:
    # Quartiles need two values.
    figures = result.figures * (2 if len(result.figures) == 1 else 1)
    q1, _, q3 = statistics.quantiles(figures, method="inclusive")
    sign = "<= " if result.at_most else ""
    comparable = before is not None and before.kind == result.kind and before.figure
    return (
        result.title,
        f"{number(result.value)} {result.unit}",
        "" if result.floor is None else number(result.floor),
        figure(result, result.figure),
        f"{figure(result, q1)}..{figure(result, q3)}",
        f"{figure(result, min(result.figures))}..{figure(result, max(result.figures))}",
        f"{sign}{figure(result, result.goal)}",
        "" if result.beyond is None else f"{sign}{figure(result, result.beyond)}",
        _verdict(result, "++", "+", "MISSED"),
        f"{result.figure / comparable - 1:+.0%}" if comparable else "",
    )


def _verdict(result: Result, beyond: str, goal: str, missed: str) -> str:
    if result.reaches(result.beyond):
        return beyond
    return goal if result.reaches(result.goal) else missed


def figure(result: Result, value: float) -> str:
    """A figure or goal, formatted for the table."""
    if result.kind == "difference":
        return f"{value:+.3g}"
    return number(value) if result.floor is None else f"{value:.2f}"


def number(value: float) -> str:
    """At least three digits, with thousands separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _details(result: Result) -> str:
    details = ", ".join(
        f"{name} {value if isinstance(value, str) else number(value)}"
        for name, value in result.details.items()
    )
    return f"{result.name}: {len(result.figures)} rounds; {details}"


def score(result: Result) -> float:
    """The figure by its goal: 1 reaches it, more is better, even if the goal is a maximum."""
    if result.at_most:
        return min(result.goal / max(result.figure, 1e-9), _SCORE_MAX)
    return min(result.figure / result.goal, _SCORE_MAX)


def chart(run: Run, path: Path) -> None:
    """Writes the scores as a self-contained SVG without scripts."""
    bars = pygal.HorizontalBar(
        style=pygal.style.CleanStyle(value_font_size=11, label_font_size=11),
        js=[],
        width=1000,
        height=120 + 40 * max(len(run.results), 1),
        title="Figures by their goals: at 1 a goal is reached, whichever way it points",
        show_legend=False,
        print_values=True,
        print_values_position="top",
        range=(0, _SCORE_MAX),
    )
    upwards = run.results[::-1]
    bars.x_labels = [result.title for result in upwards]
    bars.add("figure by goal", list(map(_bar, upwards)))
    path.write_bytes(bars.render())


def _bar(result: Result) -> dict[str, Any]:
    sign = "at most " if result.at_most else ""
    label = f"{figure(result, result.figure)} ({sign}{figure(result, result.goal)})"
    colour = _verdict(result, "#2a7f3f", "#7fb46a", "#c0504d")
    return {"value": score(result), "color": colour, "formatter": lambda _value: label}
