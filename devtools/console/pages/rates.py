"""Requests, latency and errors per service, and payments by outcome, for 15 minutes."""

import itertools
from collections.abc import Callable, Mapping, Sequence

from nicegui import ui

from devtools.console.live import Live
from devtools.console.parts import card
from devtools.console.rates import INTERVAL_SECONDS, SCRAPED, Point
from devtools.console.sources import Sources

Values = Callable[[Point], Mapping[str, float | None]]

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
_OF_SERVICES: dict[str, Values] = {
    "Requests per second": lambda point: point.rates("all"),
    "p50, milliseconds": lambda point: point.quantiles_ms(0.5),
    "p99, milliseconds": lambda point: point.quantiles_ms(0.99),
    "Errors (5xx) per second": lambda point: point.rates("errors"),
}


def page(sources: Sources) -> None:
    """The charts."""
    hint = f"A point every {INTERVAL_SECONDS} s while the console runs, of 15 minutes at most."
    ui.label(hint).classes("hint")
    colours = dict(zip(SCRAPED, itertools.cycle(_COLOURS), strict=False))
    with ui.element("div").classes("columns"):
        charts: list[tuple[ui.echart, Values]] = [
            (
                _chart("Payments per second", _OUTCOME_COLOURS),
                lambda point: {name: point.total(name) for name in _OUTCOME_COLOURS},
            ),
            *((_chart(title, colours), values) for title, values in _OF_SERVICES.items()),
        ]

    def show(points: Sequence[Point]) -> None:
        for chart, values in charts:
            _fill(chart, points, values)

    Live(lambda: list(sources.rates.points), show)


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
                "dataset": {"dimensions": ["at", *colours], "source": []},
                "series": [
                    {"name": name, "type": "line", "symbol": "circle", "symbolSize": 3,
                     "lineStyle": {"width": 2}, "encode": {"x": "at", "y": name}}
                    for name in colours
                ],
            }
        ).classes("chart")  # fmt: skip


def _fill(chart: ui.echart, points: Sequence[Point], values: Values) -> None:
    chart.options["dataset"]["source"] = [
        {
            "at": int(point.at * 1000),
            **{name: None if n is None else round(n, 2) for name, n in values(point).items()},
        }
        for point in points
    ]
    chart.update()
