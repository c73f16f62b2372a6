"""The stack: a live picture, and each process with its state and controls."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from nicegui import ui

from devtools.console.live import Live, act
from devtools.console.overview import Node, read, read_nodes
from devtools.console.parts import card, table
from devtools.console.sources import Sources

REPLICAS_MAX = 5
_SECONDS = 2.0
_DONE = {"start": "started", "stop": "stopped", "restart": "restarted"}
_COLUMNS = (
    ("name", "Process", "text-no-wrap"),
    ("status", "Status", ""),
    ("address", "Address", "wide mono"),
    ("memory", "Memory", "wide number"),
    ("restarts", "Restarts", "wide number"),
    ("actions", "", "number"),
)
_SLOTS = {
    "name": """
        <a v-if="props.row.address" :href="props.row.address">{{ props.value }}</a>
        <template v-else>{{ props.value }}</template>""",
    "status": """
        <span :class="'status tone-' + props.row.tone">{{ props.value }}</span>
        <div class="why">{{ props.row.why }}</div>""",
    "actions": f"""
        <q-btn v-for="action in props.value" flat dense no-caps :label="action"
            :aria-label="action + ' ' + props.row.name"
            @click="$parent.$emit('control', props.row.name, action)" />
        <q-select v-if="props.row.replicas" dense outlined options-dense class="replicas"
            label="replicas" aria-label="replicas" :model-value="props.row.replicas"
            :options="{list(range(1, REPLICAS_MAX + 1))}"
            @update:model-value="count => $parent.$emit('scale', props.row.name, count)" />""",
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


def page(sources: Sources) -> None:
    """The picture, then a row for each process."""
    with card("Traffic", "requests and payments per second, over the last five seconds"):
        drawn = ui.element("div").classes("picture")
    with card("Processes"):
        processes = table(_COLUMNS, key="name", slots=_SLOTS, none="No processes.")

    def show(states: list[dict[str, Any]]) -> None:
        processes.rows = states

    async def control(event: Any) -> None:
        name, action = event.args
        await act(partial(getattr(sources.supervisor, action), name), f"{name} {_DONE[action]}")

    async def scale(event: Any) -> None:
        name, count = event.args
        await act(partial(sources.supervisor.scale, name, count), f"{count} connectors")

    processes.on("control", control)
    processes.on("scale", scale)
    Live(lambda: read(sources), show, seconds=_SECONDS)
    Live(lambda: read_nodes(sources), partial(draw, drawn))
