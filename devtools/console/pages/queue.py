"""The queue: waiting and pending entries, scheduled retries, and dead letters."""

import heapq
import time
from typing import Any

import redis
from nicegui import ui

from devtools.console.live import Live, act
from devtools.console.parts import PAYMENT_SLOT, TIME_SLOT, button, card, figure, pairs, table
from devtools.console.sources import RefusedError, Sources
from devtools.merchant.report import duration
from services.common import store
from services.psp_connector.deadletters import WHY_NOT

ROWS_MAX = 100
Rows = list[dict[str, Any]]
_FIGURES = (
    ("queue_entries", "open entries"),
    ("queue_oldest_entry_age_seconds", "oldest entry"),
    ("queue_retries", "waiting for a retry"),
    ("queue_dead_letters", "dead letters"),
)
_CONSUMERS = (
    ("name", "Consumer", "mono"),
    ("what", "What", "wide"),
    ("pending", "Pending", "number"),
    ("idle", "Idle", "wide number"),
)
_RETRIES = (("id", "Payment", "mono"), ("due", "Next attempt", "number"))
_BUTTONS = (
    "<q-btn flat dense no-caps label='Show'"
    " @click=\"$parent.$emit('inspect', props.row)\" />"
    "<q-btn flat dense no-caps label='Replay'"
    " @click=\"$parent.$emit('replay', props.row)\" />"
)


def read(sources: Sources) -> tuple[dict[str, float], tuple[Rows, Rows, Rows]]:
    """The gauges now, and the tables' rows, at most ROWS_MAX each."""
    now_ms = time.time() * 1000
    retries: list[tuple[str, float]] = []
    for partition in sources.partitions:
        retries += sources.redis.zrange(partition.retries, 0, ROWS_MAX - 1, withscores=True)
    due = heapq.nsmallest(ROWS_MAX, retries, key=lambda waiting: waiting[1])
    return sources.gauges(), (
        [row for partition in sources.partitions for row in _consumers(sources.redis, partition)],
        [
            {"id": id_, "due": "due" if at <= now_ms else f"in {duration(at - now_ms)}"}
            for id_, at in due
        ],
        [
            {"letter": id_, "id": fields.get("transaction_id", ""), **_short(fields)}
            for id_, fields in sources.deadletters.latest(ROWS_MAX)
        ],
    )


def _short(fields: dict[str, str]) -> dict[str, str]:
    at = fields.get("at", "")
    return {"at": at[5:19].replace("T", " "), "reason": fields.get("reason", "")}


def _consumers(client: store.Client, partition: store.Partition) -> list[dict[str, Any]]:
    try:
        consumers = client.xinfo_consumers(partition.queue, store.GROUP)
    except redis.ResponseError:  # the first connector creates the group
        return []
    return [
        {
            "name": partition.prefix + consumer["name"],
            "what": "set aside" if consumer["name"].startswith("merchant:") else "connector",
            "pending": consumer["pending"],
            "idle": duration(consumer["idle"]) if consumer["pending"] else "",
        }
        for consumer in consumers
    ]


def page(sources: Sources) -> None:
    """Figures, then a table for each kind."""
    with ui.element("div").classes("figures"):
        figures = {name: figure(label) for name, label in _FIGURES}
    with card("Consumers", "entries held by a connector or waiting for their merchant's turn"):
        consumers = table(_CONSUMERS, key="name", none="No connector holds an entry.")
    with card("Retries", "the next attempt of payments that the PSP did not respond to"):
        none = "No retries are scheduled. The page PSP can make payments fail."
        retries = table(_RETRIES, slots={"id": PAYMENT_SLOT}, none=none)
    with card("Dead letters", "payments that were given up"):
        letters = _letters(sources)

    def show(data: tuple[dict[str, float], tuple[Rows, Rows, Rows]]) -> None:
        gauges, rows = data
        for name, label in figures.items():
            value = gauges[name]
            label.text = duration(value * 1000) if name.endswith("seconds") else f"{value:,.0f}"
        consumers.rows, retries.rows, letters.rows = rows

    Live(lambda: read(sources), show)


def _letters(sources: Sources) -> ui.table:
    letters = table(
        (
            ("at", "Time (UTC)", "wide mono"),
            ("id", "Payment", "mono"),
            ("reason", "Reason", ""),
            ("actions", "", "number"),
        ),
        key="letter",
        slots={"id": PAYMENT_SLOT, "at": TIME_SLOT, "actions": _BUTTONS},
        none="No dead letters: no payment was given up.",
    )

    async def replay(arguments: Any) -> None:
        letter = arguments.args["letter"]

        def change() -> None:
            outcome = sources.deadletters.replay(letter)
            if outcome != "done":
                raise RefusedError(WHY_NOT.get(outcome, outcome))

        await act(change, "Queued again")

    async def inspect(arguments: Any) -> None:
        fields = await act(lambda: sources.deadletters.get(arguments.args["letter"]) or {})
        if fields is None:
            return
        with ui.dialog(value=True) as dialog, ui.card():
            ui.label("Dead letter").classes("text-subtitle1")
            pairs(fields)
            button("Close", dialog.close).props("autofocus").classes("self-end")

    letters.on("replay", replay)
    letters.on("inspect", inspect)
    return letters
