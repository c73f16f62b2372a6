"""The live picture of the stack: calls between its parts, with rates."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import redis
from nicegui import ui

from devtools.console.sources import Sources
from devtools.supervisor import SupervisorError

# Each but the first has an arrow leading to it; style.css places them.
NODES = ("merchant", "router", "auth-api", "core-api", "queue", "psp-connector", "PSP")


@dataclass(frozen=True)
class Node:
    """A part of the stack as the picture shows it."""

    note: str
    is_up: bool
    rate: float
    """Calls per second on the arrow that leads to it."""


def look(sources: Sources) -> dict[str, Node]:
    """The current state of the stack; the part of an unavailable source stays empty."""
    point = sources.rates.latest
    requests = point.rates("all")
    auth, core = requests.get("auth-api", 0.0), requests.get("core-api", 0.0)
    rates = {
        "router": auth + core,
        "auth-api": auth,
        "core-api": core,
        "queue": point.total("accepted"),
        "psp-connector": sum(map(point.total, ("captured", "declined", "failed", "retry"))),
        "PSP": point.total("psp"),
    }
    try:
        states = sources.supervisor.processes()
    except SupervisorError:
        states = []
    up = {"merchant"} | {state.service for state in states if state.is_ready and state.is_running}
    notes = {"merchant": "you", "queue": "?", "PSP": "down or external"}
    if "psp-sandbox" in up:
        up.add("PSP")
        notes["PSP"] = "sandbox"
    with contextlib.suppress(redis.RedisError):
        notes["queue"] = f"{sources.gauges()['queue_entries']:.0f} open"
        up.add("queue")
    return {
        name: Node(
            notes.get(name, "up" if name in up else "not up"), name in up, rates.get(name, 0.0)
        )
        for name in NODES
    }


def draw(picture: ui.element, nodes: Mapping[str, Node]) -> None:
    """Redraws the stack; an arrow is coloured while there is traffic."""
    picture.clear()
    with picture:
        for name, node in nodes.items():
            flows, off = " step-flows" * bool(node.rate), " step-off" * (not node.is_up)
            with ui.element("div").classes(f"step step-{name}{flows}{off}"):
                with ui.element("div").classes("arrow"):
                    ui.label(f"{node.rate:.1f}/s" if node.rate < 100 else f"{node.rate:.0f}/s")
                    ui.icon("trending_flat")
                with ui.element("div").classes("node"):
                    ui.label(name)
                    ui.label(node.note).classes("hint")
