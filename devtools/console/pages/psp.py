"""The PSP sandbox: fault switches, its requests and its payments."""

from typing import Any

from nicegui import ui

from devtools.console.live import Live, act
from devtools.console.parts import PAYMENT_SLOT, STATUS_SLOT, card, figure, table
from devtools.console.sources import Sources
from devtools.merchant.report import money

# What each switch adds to the sandbox's faults (services/psp_sandbox/faults.py).
SWITCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "Slow": ("each request takes two more seconds", {"delay_ms": 2000}),
    "Down": ("each request gets 503", {"down": "unavailable"}),
    "Flaky": ("half of the requests get 500", {"error_rate": 0.5}),
    "Decline": ("each card is declined", {"decline": True}),
}
_FIGURES = {
    "requests": "requests with a key",
    "captured": "captured",
    "declined": "declined",
    "keys_captured_more_than_once": "keys captured twice",
}
_CHARGES = (
    ("id", "Idempotency key", "mono"),
    ("amount", "Amount", "number"),
    ("status", "Outcome", ""),
    ("requests", "Requests", "number"),
    ("intent", "Payment intent", "wide mono"),
)
_NONE = "The sandbox has had no requests yet. Send a payment on the page Try it."
_ROWS = 50


def page(sources: Sources) -> None:
    """The switches, then the latest payments by idempotency key."""
    with card("Fault injection", "for each request of the connector, until switched off"):
        switches = {name: _switch(name, text) for name, (text, _) in SWITCHES.items()}
        injected = ui.label().classes("hint")
    with ui.element("div").classes("figures"):
        figures = {name: figure(label) for name, label in _FIGURES.items()}
    with card("Charges", "requests to the sandbox by idempotency key, latest first"):
        slots = {"id": PAYMENT_SLOT, "status": STATUS_SLOT}
        charges = table(_CHARGES, key="intent", slots=slots, none=_NONE)

    def show(data: tuple[Any, Any]) -> None:
        faults, payments = data
        for name, (_, fault) in SWITCHES.items():
            switches[name].value = fault.items() <= faults["faults"].items()
        counts = ", ".join(f"{kind} {count}" for kind, count in faults["given"].items())
        injected.text = f"Faults injected since the last change: {counts}" if counts else ""
        for name, label in figures.items():
            label.text = f"{payments['summary'][name]:,}"
        charges.rows = [_row(charge) for charge in payments["data"]]

    live = Live(lambda: read(sources), show)

    async def change() -> None:
        live.discard()
        chosen = [name for name, switch in switches.items() if switch.value]
        faults = {k: v for name in chosen for k, v in SWITCHES[name][1].items()}
        done = f"Faults on: {', '.join(chosen)}" if chosen else "All faults off"
        await act(lambda: sources.sandbox("PUT", "/faults", faults), done)
        await live.refresh()

    for switch in switches.values():
        switch.on("update:model-value", change)  # by the user, not by `show`


def read(sources: Sources) -> tuple[Any, Any]:
    """The sandbox's faults and its latest payments."""
    faults = sources.sandbox("GET", "/faults")
    return faults, sources.sandbox("GET", f"/payment_intents?limit={_ROWS}")


def _switch(name: str, text: str) -> ui.switch:
    with ui.row():
        switch = ui.switch(name)
        ui.label(text).classes("hint")
    return switch


def _row(charge: dict[str, Any]) -> dict[str, Any]:
    intent = charge["payment_intent"]
    outcome = "captured" if intent["status"] == "succeeded" else "declined"
    return {
        "id": charge["idempotency_key"],
        "amount": money(intent["amount"], intent["currency"].upper()),
        "status": outcome,
        "intent": intent["id"],
        "requests": charge["requests"],
    }
