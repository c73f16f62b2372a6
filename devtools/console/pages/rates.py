"""Requests, latencies and errors of each service, and payments by outcome, of 15 minutes."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from nicegui import ui

from devtools.console.frame import Live
from devtools.console.parts import card
from devtools.console.rates import INTERVAL_SECONDS, OUTCOMES, SCRAPED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devtools.console.rates import Point
    from devtools.console.sources import Sources

# Readable on white and on near-black; the first ones are those of the waterfall (style.css).
_COLOURS = ("#2f8f83", "#2f6fde", "#c76a12", "#b8417a", "#6d5bd0", "#7a8494")
_OUTCOME_COLOURS = {
    "accepted": "#3b82f6",
    "captured": "#10a37f",
    "declined": "#d97706",
    "failed": "#dc2626",
    "retry": "#a855f7",
}
_GREY = "#808792"
_SHOWN_SECONDS_MIN = 120


def page(sources: Sources) -> None:
    """The charts."""
    hint = f"A point every {INTERVAL_SECONDS} s while the console runs, of 15 minutes at most."
    ui.label(hint).classes("hint")
    with ui.element("div").classes("columns"):
        charts: list[tuple[ui.echart, Callable[[Point], Mapping[str, float | None]]]] = [
            (
                _chart("Payments per second", _OUTCOME_COLOURS),
                lambda point: {name: point.outcomes.get(name, 0.0) for name in OUTCOMES},
            ),
            _of_services("Requests per second", lambda load: load.requests),
            _of_services("p50, milliseconds", lambda load: load.p50_ms),
            _of_services("p99, milliseconds", lambda load: load.p99_ms),
            _of_services("Errors (5xx) per second", lambda load: load.errors),
        ]

    def show(points: Sequence[Point]) -> None:
        for chart, value in charts:
            _fill(chart, points, value)

    Live(lambda: list(sources.rates.points), show)


def _of_services(title: str, value: Callable[[Any], float | None]) -> Any:
    chart = _chart(title, dict(zip(SCRAPED, itertools.cycle(_COLOURS), strict=False)))
    return chart, lambda point: {
        name: value(point.services[name]) if name in point.services else None for name in SCRAPED
    }


def _chart(title: str, colours: Mapping[str, str]) -> ui.echart:
    axis = {"axisLabel": {"color": _GREY}, "splitLine": {"lineStyle": {"color": f"{_GREY}44"}}}
    with card(title):
        return ui.echart(
            {
                "animation": False,
                "backgroundColor": "transparent",
                "color": list(colours.values()),
                "grid": {"left": 8, "right": 16, "top": 34, "bottom": 6, "containLabel": True},
                "legend": {"top": 0, "left": 0, "icon": "circle", "textStyle": {"color": _GREY},
                           "type": "scroll", "itemWidth": 9},
                "tooltip": {"trigger": "axis"},
                "xAxis": {"type": "time", **axis, "splitNumber": 3},
                "yAxis": {"type": "value", "min": 0, "minInterval": 1, **axis, "splitNumber": 3},
                "series": [
                    {"name": name, "type": "line", "symbol": "circle", "symbolSize": 3,
                     "lineStyle": {"width": 2}, "data": []}
                    for name in colours
                ],
            }
        ).classes("chart")  # fmt: skip


def _fill(
    chart: ui.echart,
    points: Sequence[Point],
    value: Callable[[Point], Mapping[str, float | None]],
) -> None:
    now = time.time()
    options = chart.options
    shown_seconds = max(now - points[0].at, _SHOWN_SECONDS_MIN) if points else _SHOWN_SECONDS_MIN
    options["xAxis"]["min"] = int((now - shown_seconds) * 1000)
    options["xAxis"]["max"] = int(now * 1000)
    rows = [(int(point.at * 1000), value(point)) for point in points]
    for series in options["series"]:
        series["data"] = [
            [at, None if (found := values.get(series["name"])) is None else round(found, 2)]
            for at, values in rows
        ]
    chart.update()
