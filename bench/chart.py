"""The chart: each figure relative to its goal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bench import report

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Result, Run


# Caps the longest bar, so that the others stay readable.
_SCORE_MAX = 2.5


def score(result: Result) -> float:
    """The figure by its goal: 1 reaches it, more is better, also where the goal is a maximum."""
    if result.goal is None:
        return 0.0
    goal, figure = result.goal.goal, result.figure.median
    if result.goal.at_most:
        return goal / figure if figure > goal / _SCORE_MAX else _SCORE_MAX
    return min(figure / goal, _SCORE_MAX)


def label(result: Result) -> str:
    """The figure and its goal, as in the table."""
    if result.goal is None:
        return ""
    sign = "at most " if result.goal.at_most else ""
    shown = [report.figure(result, value) for value in (result.figure.median, result.goal.goal)]
    return f"{shown[0]} ({sign}{shown[1]})"


def _bar(result: Result) -> dict[str, Any]:
    colours = {"beyond": "#2a7f3f", "goal": "#7fb46a", "missed": "#c0504d", "": "#888888"}
    return {
        "value": score(result),
        "color": colours[result.verdict],
        "formatter": lambda _value: label(result),
    }


def write(run: Run, path: Path) -> None:
    """Writes the chart as a self-contained SVG without scripts."""
    pygal = _pygal()
    judged = [result for result in run.results if result.goal is not None]
    chart = pygal.HorizontalBar(
        style=pygal.style.CleanStyle(value_font_size=11, label_font_size=11),
        js=[],
        width=1000,
        height=120 + 40 * max(len(judged), 1),
        title="Figures by their goals: at 1 a goal is reached, whichever way it points",
        show_legend=False,
        print_values=True,
        print_values_position="top",
        range=(0, _SCORE_MAX),
    )
    shown = list(reversed(judged))  # the first one comes on top
    chart.x_labels = [result.title for result in shown]
    chart.add("figure by goal", [_bar(result) for result in shown])
    path.write_bytes(chart.render())


def _pygal() -> Any:
    """Imports pygal, which looks for plugins through an interface that Python 3.12 removed.

    Python 3.11 warns about it; we use no plugins.
    """
    finders = list(sys.meta_path)
    try:
        import pygal  # noqa: PLC0415
    finally:
        sys.meta_path[:] = finders
    return pygal
