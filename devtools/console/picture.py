"""The live picture of the stack: who talks to whom, and how much. SVG without foreign text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devtools.supervisor import SupervisorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devtools.console.sources import Sources

_WIDTH, _HEIGHT = 118, 46


@dataclass(frozen=True)
class Layout:
    """Where each node's centre is, and the size of the picture."""

    width: int
    height: int
    nodes: Mapping[str, tuple[int, int]]


WIDE = Layout(
    1180,
    150,
    {
        "merchant": (62, 75),
        "router": (252, 75),
        "auth-api": (480, 26),
        "core-api": (480, 122),
        "queue": (692, 122),
        "psp-connector": (904, 122),
        "PSP": (1116, 122),
    },
)
NARROW = Layout(
    350,
    520,
    {
        "merchant": (175, 28),
        "router": (175, 122),
        "auth-api": (75, 216),
        "core-api": (265, 216),
        "queue": (265, 310),
        "psp-connector": (265, 404),
        "PSP": (265, 492),
    },
)
_ARROWS = (
    ("merchant", "router"),
    ("router", "auth-api"),
    ("router", "core-api"),
    ("core-api", "queue"),
    ("queue", "psp-connector"),
    ("psp-connector", "PSP"),
)


@dataclass(frozen=True)
class Seen:
    """What the picture shows: per second on each arrow, the queue's depth, and who is up."""

    rates: tuple[float, ...]
    depth: int | None
    up: frozenset[str]
    sandbox: bool


def look(sources: Sources) -> Seen:
    """The latest rates. A source that is away leaves its part empty."""
    point = sources.rates.latest
    loads = {name: load.requests for name, load in point.services.items()} if point else {}
    outcomes = point.outcomes if point else {}
    auth, core = loads.get("auth-api", 0.0), loads.get("core-api", 0.0)
    attempts = sum(outcomes.get(name, 0.0) for name in ("captured", "declined", "failed", "retry"))
    rates = (
        auth + core, auth, core, outcomes.get("accepted", 0.0), attempts, outcomes.get("psp", 0.0)
    )  # fmt: skip
    try:
        states = sources.supervisor.processes()
    except SupervisorError:
        states = []
    up = {state.service for state in states if state.is_ready and state.is_running}
    gauges = {metric.name: metric.samples[0].value for metric in sources.queue.collect()}
    depth = int(gauges["queue_entries"]) if gauges else None
    is_up = up | ({"queue"} if gauges else set()) | {"merchant"}
    return Seen(rates, depth, frozenset(is_up), "psp-sandbox" in up)


def draw(seen: Seen, layout: Layout) -> str:
    """The picture as SVG, in the page's colours."""
    arrows = "".join(
        _arrow(layout.nodes[start], layout.nodes[end], rate)
        for (start, end), rate in zip(_ARROWS, seen.rates, strict=True)
    )
    nodes = "".join(_node(name, at, seen) for name, at in layout.nodes.items())
    spoken = ", ".join(
        f"{start} to {end} {rate:.1f} per second"
        for (start, end), rate in zip(_ARROWS, seen.rates, strict=True)
    )
    return (
        f'<svg viewBox="0 0 {layout.width} {layout.height}" role="img" aria-label="{spoken}">'
        f"{arrows}{nodes}</svg>"
    )


def _node(name: str, at: tuple[int, int], seen: Seen) -> str:
    x, y = at
    is_up = name in seen.up or (name == "PSP" and seen.sandbox)
    below = {
        "merchant": "you",
        "queue": "?" if seen.depth is None else f"{seen.depth} open",
        "PSP": "sandbox" if seen.sandbox else "away, or external",
    }.get(name, "up" if is_up else "not up")
    kind = "node" if is_up else "node node-off"
    return (
        f'<g class="{kind}"><rect x="{x - _WIDTH // 2}" y="{y - _HEIGHT // 2}" rx="9"'
        f' width="{_WIDTH}" height="{_HEIGHT}"/>'
        f'<text x="{x}" y="{y - 3}" class="node-name">{name}</text>'
        f'<text x="{x}" y="{y + 14}" class="node-note">{below}</text></g>'
    )


def _arrow(start: tuple[int, int], end: tuple[int, int], rate: float) -> str:
    """A line from edge to edge with its rate in the middle; it moves while there is traffic."""
    (x1, y1), (x2, y2) = start, end
    is_level = abs(x2 - x1) > _WIDTH
    if is_level:
        x1, x2 = x1 + _WIDTH // 2, x2 - _WIDTH // 2 - 7
    else:
        y1, y2 = y1 + _HEIGHT // 2, y2 - _HEIGHT // 2 - 7
    text = f"{rate:.1f}/s" if rate < 100 else f"{rate:.0f}/s"
    flow = "arrow arrow-flows" if rate else "arrow"
    tip = (
        f"M{x2} {y2 - 5}L{x2 + 8} {y2}L{x2} {y2 + 5}Z"
        if is_level
        else f"M{x2 - 5} {y2}L{x2} {y2 + 8}L{x2 + 5} {y2}Z"
    )
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
    aside = 8 if x2 >= x1 else -8
    if x2 != x1 and not is_level:
        middle_x, middle_y = middle_x + 2 * aside, middle_y - 4
    label = (
        f'<text x="{middle_x}" y="{middle_y - 9 - abs(y2 - y1) / 5}" class="rate">{text}</text>'
        if is_level
        else f'<text x="{middle_x + aside}" y="{middle_y + 4}" class="rate"'
        f' style="text-anchor: {"start" if aside > 0 else "end"}">{text}</text>'
    )
    return f'<path class="{flow}" d="M{x1} {y1}L{x2} {y2}"/><path class="tip" d="{tip}"/>{label}'
