"""The data of the page Stack: each process with its state, and the parts of the picture."""

import contextlib
from dataclasses import dataclass
from typing import Any

import psutil
import redis

from devtools import health
from devtools.catalog import LISTENERS
from devtools.console.sources import Sources
from devtools.supervisor import ProcessState, SupervisorError

# An arrow leads to each but the first; style.css places them.
NODES = ("merchant", "router", "auth-api", "core-api", "queue", "psp-connector", "PSP")
_MB = 1_000_000
# Preflight, run while the stack is up, would find the ports in use and stop the stack. The console
# would end before it could start itself.
_NO_ACTIONS = ("preflight", "ready", "console")


def read(sources: Sources) -> list[dict[str, Any]]:
    """All processes; those with a port first, in port order."""
    states = sources.supervisor.processes()
    order = [*LISTENERS]
    states.sort(key=lambda s: (order.index(s.service) if s.service in order else 99, s.name))
    return [_process(sources, state, states) for state in states]


def _process(sources: Sources, state: ProcessState, states: list[ProcessState]) -> dict[str, Any]:
    """One process as the page shows it; `tone` is its colour: ok, wait, bad or off."""
    service = LISTENERS.get(state.service)
    address = ""
    if service and state.is_running:
        address = service.url(sources.first_port, state.replica)
    status, tone = _status(state, listens=service is not None)
    actions = ["stop", "restart"] if state.is_running else ["start"]
    is_scaled = state.service == "psp-connector" and not state.replica
    return {
        "name": state.name,
        "status": status,
        "tone": tone,
        "why": _why(sources, state, states) if tone in {"wait", "bad"} else "",
        "address": address,
        "restarts": state.restarts or "",
        "memory": _memory(state.pid) if state.is_running else "",
        "actions": [] if state.name in _NO_ACTIONS else actions,
        "replicas": sum(other.service == state.service for other in states) * is_scaled,
    }


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
    """The processes it waits for, or the last line of its log."""
    if state.is_pending:
        with contextlib.suppress(SupervisorError):
            needed = sources.supervisor.needs(state.name)
            missing = [
                f"{other.name} ({other.status.lower()})"
                for other in states
                if other.service in needed and not (other.is_ready or other.has_succeeded)
            ]
            return f"waits for {', '.join(missing)}" if missing else "about to start"
    reason = health.faults([state]).get(state.name, state.status)
    tail = health.log_tail(sources.settings.platform_state, state.name).strip().splitlines()
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


@dataclass(frozen=True)
class Node:
    """A part of the stack as the picture shows it."""

    note: str
    is_up: bool
    rate: float
    """Calls per second on the arrow that leads to it."""


def read_nodes(sources: Sources) -> dict[str, Node]:
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
