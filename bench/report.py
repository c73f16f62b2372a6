"""The table for the terminal, and the chart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pygal

from bench.results import Result, Run
from devtools.terminal import columns

_HEAD = (
    "item", "value", "floor", "figure", "quartiles", "extremes", "goal", "beyond", "", "before",
)  # fmt: skip
_MARKS = {"beyond": "++", "goal": "+", "missed": "MISSED"}
_COLOURS = {"beyond": "#2a7f3f", "goal": "#7fb46a", "missed": "#c0504d"}
# Caps the longest bar, so that the others stay readable.
_SCORE_MAX = 2.5


def table(run: Run, before: Mapping[str, Result]) -> str:
    """A line per row, then failures, details and the machine."""
    cells = [_HEAD, *(_cells(result, before.get(result.name)) for result in run.results)]
    rows = columns(cells, right=range(1, len(_HEAD)))
    rows.insert(1, "-" * max(map(len, rows)))
    failures = [f"{failure.name}: not measured: {failure.reason}" for failure in run.failures]
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    end = f"{run.mode}, {run.seconds:.0f} s, {machine}\n"
    return "\n".join([*rows, *failures, "", *map(_details, run.results), "", end])


def _cells(result: Result, before: Result | None) -> tuple[str, ...]:
    spread = result.figure
    sign = "<= " if result.at_most else ""
    comparable = before is not None and before.kind == result.kind and before.figure.median
    return (
        result.title,
        f"{number(result.value)} {result.unit}",
        "" if result.floor is None else number(result.floor),
        figure(result, spread.median),
        f"{figure(result, spread.q1)}..{figure(result, spread.q3)}",
        f"{figure(result, spread.low)}..{figure(result, spread.high)}",
        f"{sign}{figure(result, result.goal)}",
        "" if result.beyond is None else f"{sign}{figure(result, result.beyond)}",
        _MARKS[result.verdict],
        f"{spread.median / comparable - 1:+.0%}" if comparable else "",
    )


def figure(result: Result, value: float) -> str:
    """A figure or goal, formatted for the table."""
    if result.kind == "difference":
        return f"{value:+.3g}"
    return f"{value:.2f}" if result.kind == "ratio" else number(value)


def number(value: float) -> str:
    """At least three digits, with thousands separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _details(result: Result) -> str:
    details = ", ".join(
        f"{name} {value if isinstance(value, str) else number(value)}"
        for name, value in result.details.items()
    )
    return f"{result.name}: {result.rounds} rounds; {details}"


def score(result: Result) -> float:
    """The figure by its goal: 1 reaches it, more is better, even if the goal is a maximum."""
    goal, figure = result.goal, result.figure.median
    if result.at_most:
        return goal / figure if figure > goal / _SCORE_MAX else _SCORE_MAX
    return min(figure / goal, _SCORE_MAX)


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
    bars.add("figure by goal", [_bar(result) for result in upwards])
    path.write_bytes(bars.render())


def _bar(result: Result) -> dict[str, Any]:
    sign = "at most " if result.at_most else ""
    label = f"{figure(result, result.figure.median)} ({sign}{figure(result, result.goal)})"
    colour = _COLOURS[result.verdict]
    return {"value": score(result), "color": colour, "formatter": lambda _value: label}
