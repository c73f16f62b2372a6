"""The stack: a live picture, and each process with what it does and may be told to do."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
from nicegui import ui

from devtools import wait
from devtools.catalog import CONSOLE, LISTENERS, SERVICES
from devtools.console import picture
from devtools.console.frame import Live, act
from devtools.console.parts import button, card
from devtools.supervisor import SupervisorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devtools.console.sources import Sources
    from devtools.supervisor import ProcessState

REPLICAS_MAX = 5
_SECONDS = 2.0
_MB = 1_000_000
# Preflight beside a running stack finds its ports taken, and stops all of it.
_NO_ACTIONS = ("preflight", "ready")
_DONE = {"start": "started", "stop": "stopped", "restart": "restarted"}


@dataclass(frozen=True)
class Process:
    """One process as the page shows it."""

    name: str
    status: str
    tone: str
    """Its colour: ok, wait, bad or off."""
    why: str
    address: str
    restarts: int
    memory: str
    runs: bool
    replicas: int


def read(sources: Sources) -> list[Process]:
    """All processes; those that listen come first, by port."""
    states = sources.supervisor.processes()
    order = [*SERVICES, CONSOLE.name]
    states.sort(key=lambda s: (order.index(s.service) if s.service in order else 99, s.name))
    return [_process(sources, state, states) for state in states]


def _process(sources: Sources, state: ProcessState, states: list[ProcessState]) -> Process:
    service = LISTENERS.get(state.service)
    address = ""
    if service and state.is_running:
        scheme = "redis" if service.name == "redis" else "http"
        address = f"{scheme}://127.0.0.1:{service.port(sources.first_port, state.replica)}"
    status, tone = _status(state, listens=service is not None)
    return Process(
        name=state.name,
        status=status,
        tone=tone,
        why=_why(sources, state, states) if tone in {"wait", "bad"} else "",
        address=address,
        restarts=state.restarts,
        memory=_memory(state.pid) if state.is_running else "",
        runs=state.is_running,
        replicas=sum(other.service == state.service for other in states),
    )


def _status(state: ProcessState, *, listens: bool) -> tuple[str, str]:
    if state.is_running and listens and not state.is_ready:
        return "starting", "wait"
    if state.is_running:
        return "ready" if listens else "running", "ok"
    if state.is_pending:
        return "waiting", "wait"
    if state.has_succeeded and not listens:
        return "done", "off"
    return (state.status.lower(), "bad") if state.has_failed else ("stopped", "off")


def _why(sources: Sources, state: ProcessState, states: list[ProcessState]) -> str:
    """Whom it waits for, or the last thing it logged before it ended."""
    if state.is_pending:
        with contextlib.suppress(SupervisorError):
            needed = sources.supervisor.needs(state.name)
            missing = [
                f"{other.name} ({other.status.lower()})"
                for other in states
                if other.service in needed and not (other.is_ready or other.has_succeeded)
            ]
            return f"waits for {', '.join(missing)}" if missing else "about to start"
    reason = wait.faults([state]).get(state.name, state.status)
    tail = wait.log_tail(sources.settings.platform_state, state.name).strip().splitlines()
    return f"{reason}: {tail[-1].strip()}" if tail else reason


def _memory(pid: int) -> str:
    """PSS of the process and its children where the system knows it, else RSS."""
    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                used = process.memory_full_info()
                total += getattr(used, "pss", used.rss)
    return f"{total / _MB:.0f} MB" if total else ""


@dataclass
class _Card:
    """The elements of one process."""

    labels: dict[str, Any] = field(default_factory=dict)
    buttons: dict[str, ui.button] = field(default_factory=dict)


def page(sources: Sources) -> None:
    """The picture, then a row for each process."""
    with card("Traffic", "requests and payments per second, over the last five seconds"):
        wide = ui.html("", sanitize=False).classes("picture picture-wide")
        narrow = ui.html("", sanitize=False).classes("picture picture-narrow")
    with card("Processes"):
        container = ui.element("div").classes("processes")
    cards: dict[str, _Card] = {}

    def show(found: list[Process]) -> None:
        if list(cards) != [process.name for process in found]:
            container.clear()
            cards.clear()
            with container:
                cards.update({one.name: _row(sources, one) for one in found})
        for process in found:
            _update(cards[process.name], process)

    def draw(seen: picture.Seen) -> None:
        wide.content = picture.draw(seen, picture.WIDE)
        narrow.content = picture.draw(seen, picture.NARROW)

    Live(lambda: read(sources), show, seconds=_SECONDS)
    Live(lambda: picture.look(sources), draw)


def _row(sources: Sources, process: Process) -> _Card:
    made = _Card()
    with ui.element("div").classes("process-row").props(f'data-process="{process.name}"'):
        with ui.element("div").classes("process-main"):
            ui.label(process.name).classes("process-name")
            made.labels["status"] = ui.label()
            made.labels["address"] = ui.link("", "").classes("mono")
            made.labels["restarts"] = ui.label().classes("hint")
            made.labels["memory"] = ui.label().classes("hint")
        with ui.element("div").classes("process-actions"):
            if process.name not in _NO_ACTIONS:
                _actions(sources, process, made)
        made.labels["why"] = ui.label().classes("why")
    return made


def _actions(sources: Sources, process: Process, made: _Card) -> None:
    supervisor = sources.supervisor
    changes: dict[str, Callable[[str], None]] = {
        "start": supervisor.start,
        "stop": supervisor.stop,
        "restart": supervisor.restart,
    }
    for name, change in changes.items():
        made.buttons[name] = button(
            name,
            partial(act, partial(change, process.name), f"{process.name} {_DONE[name]}"),
            spoken=f"{name} {process.name}",
        )
    if process.name in {"psp-connector", "psp-connector-0"}:
        count = ui.select(
            list(range(1, REPLICAS_MAX + 1)), value=process.replicas, label="replicas"
        )
        count.props('dense outlined options-dense aria-label="replicas"').classes("replicas")
        count.on_value_change(
            lambda: act(
                lambda: supervisor.scale(process.name, count.value), f"{count.value} connectors"
            )
        )


def _update(made: _Card, process: Process) -> None:
    labels = made.labels
    labels["status"].text = process.status
    labels["status"].classes(replace=f"status tone-{process.tone}")
    labels["address"].text = process.address.partition("://")[2]
    labels["address"].visible = bool(process.address)
    labels["address"].props(f'href="{process.address}"')
    times = "restart" if process.restarts == 1 else "restarts"
    labels["restarts"].text = f"{process.restarts} {times}" if process.restarts else ""
    labels["memory"].text = process.memory
    labels["why"].text = process.why
    labels["why"].visible = bool(process.why)
    for name, shown in made.buttons.items():
        shown.visible = process.runs != (name == "start")
