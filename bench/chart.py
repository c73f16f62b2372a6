"""The chart: each figure as a part of its goal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Result, Run


def score(result: Result) -> float:
    """The figure by its goal: 1 reaches it, more is better, whichever way the goal points."""
    if result.goal is None:
        return 0.0
    goal, figure = result.goal.goal, result.figure.median
    return goal / max(figure, goal / 10) if result.goal.at_most else figure / goal


def write(run: Run, path: Path) -> None:
    """Writes the chart as SVG, complete in itself: no script, nothing from elsewhere."""
    pygal = _pygal()
    judged = [result for result in run.results if result.goal is not None]
    chart = pygal.HorizontalBar(
        style=pygal.style.CleanStyle(value_font_size=11, label_font_size=11),
        js=[],
        width=1000,
        height=120 + 40 * max(len(judged), 1),
        title="How much of its goal each figure reaches (1 is the goal)",
        show_legend=False,
        print_values=True,
        value_formatter=lambda value: f"{value:.2f}",
        range=(0, max([1.5, *map(score, judged)])),
    )
    shown = list(reversed(judged))  # the first one comes on top
    chart.x_labels = [result.title for result in shown]
    colours = {"beyond": "#2a7f3f", "goal": "#7fb46a", "missed": "#c0504d", "": "#888888"}
    chart.add(
        "figure by goal",
        [{"value": score(result), "color": colours[result.verdict]} for result in shown],
    )
    path.write_bytes(chart.render())


def _pygal() -> Any:
    """The library, imported late: it then looks for plugins at every import, in a way of old.

    Python 3.11 warns of that each time, and 3.12 has forgotten it; there are no plugins here.
    """
    finders = list(sys.meta_path)
    try:
        import pygal  # noqa: PLC0415
    finally:
        sys.meta_path[:] = finders
    return pygal
