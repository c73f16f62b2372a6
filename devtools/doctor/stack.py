"""The doctor's checks of the running stack: ports and health; of its Redis, in data.py."""

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import httpx
import psutil

from devtools import environment, loglines, preflight, processes
from devtools.address import free_block, has_own_redis, listeners, recorded_port
from devtools.catalog import ALL_PROCESSES, CONSOLE, LISTENERS
from devtools.checkout import SET_BY_THE_STACK, Checkout
from devtools.doctor import data
from devtools.doctor.findings import Finding
from devtools.new import unsynced
from devtools.processes import Holder, Member
from devtools.settings import SETTINGS
from devtools.supervisor import ProcessState, Supervisor, SupervisorError, UnresponsiveError

_RESPONSE_SECONDS_MAX = 2.0
# A service with a syntax error ends within a second of its start.
_CRASH_SECONDS_MAX, _POLL_SECONDS = 3.0, 0.2
# The first may be a restart after `kill -9`.
_RESTARTS_MAX = 2


class Running:
    """The running stack; each port is inspected once."""

    def __init__(self, checkout: Checkout, next_port: int) -> None:
        self._checkout = checkout
        self._next = next_port
        # PLATFORM_PORT may have changed since the start.
        self._first = (self._environ and recorded_port(checkout.state)) or next_port
        self._state = str(checkout.state.resolve())
        self._numbers = listeners(self._first, checkout.merged)
        # Once, before the probes: two that try a port at the same time would each find it in use.
        self._holders = processes.holders(self._numbers, checkout.merged)

    @cached_property
    def _orphans(self) -> list[Member]:
        return processes.orphans(self._checkout.state)

    @cached_property
    def _supervised(self) -> list[Holder]:
        """The listeners of this checkout's stack, without orphans; none if it is down."""
        pids = {orphan.process.pid for orphan in self._orphans}
        ours = [holder for holder in self._holders.values() if holder.state == self._state]
        return [holder for holder in ours if holder.pid not in pids]

    @cached_property
    def _environ(self) -> Mapping[str, str]:
        """The environment that the running stack was started with; empty if it is down."""
        return processes.running_environ(self._checkout.state)

    @property
    def _supervisor(self) -> Supervisor:
        return Supervisor(self._environ.get("PC_SOCKET_PATH", ""))

    def _states(self) -> list[ProcessState]:
        """The processes of the running supervisor; none if it does not respond."""
        with contextlib.suppress(SupervisorError):
            return self._supervisor.processes()
        return []

    @cached_property
    def listed(self) -> Mapping[str, ProcessState]:
        """The supervisor's processes by name; the first replica also by its plain name."""
        states = self._states()
        first = {state.service: state for state in states if state.replica == 0}
        return first | {state.name: state for state in states}

    @cached_property
    def _crashing(self) -> set[str]:
        """Processes that were restarted before, and end again instead of becoming ready.

        Or take long to end, as one whose port is in use: two restarts count as such.
        """
        # One that has ended was stopped by hand.
        waiting = [one for one in self.listed.values() if not one.is_ready and not one.has_ended]
        starting = {one.name: one for one in waiting if one.restarts}
        ended = {name for name, one in starting.items() if not one.is_running}
        deadline = time.monotonic() + _CRASH_SECONDS_MAX
        while starting.keys() - ended and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            for state in self._states():
                before = starting.get(state.name)
                if before and state.is_ready:
                    del starting[state.name]
                elif before and (state.restarts > before.restarts or not state.is_running):
                    ended.add(state.name)
        slow = {
            name
            for name, one in starting.items()
            if one.restarts >= _RESTARTS_MAX and one.exit_code >= 0
        }
        return ended | (slow - {"reload"})  # which has no ready line

    def moved(self) -> list[Finding]:
        """A note if the next start takes another port."""
        if self._first == self._next:
            return []
        note = f"the next start takes PLATFORM_PORT={self._next}"
        remedy = "to apply it: `platform down`, then `platform up`"
        return [Finding("stack", f"at {self._first}", "note", note, remedy)]

    def unreachable(self) -> list[Finding]:
        """A fault if the supervisor cannot be reached: the remedies of the others would fail."""
        socket = self._environ.get("PC_SOCKET_PATH", "")
        if socket and not Path(socket).is_socket():
            note = f"running, but its socket {socket} was deleted"
            return [Finding("stack", "unreachable", "fault", note, "`platform down` stops it")]
        try:
            self._supervisor.is_listening()
        except UnresponsiveError as error:
            return [Finding("stack", "no response", "fault", str(error))]
        return []

    def _may_be_ours(self, name: str) -> bool:
        """Whether a port's listener is its process; while the stack is up, even in a debugger."""
        holder = self._holders.get(name)
        if holder is None or holder.process not in {"", name}:
            return False
        return bool(self._supervised or holder.state == self._state)

    def _log(self, name: str) -> str:
        return f"see {loglines.file_of(self._checkout.state, name.removesuffix(' bus'))}"

    def ports(self) -> list[Finding]:
        """Each port and its holder, then failed processes without a port in this list.

        Not jobs, such as `ready`: that one failed once says nothing about now.
        """
        found = [self._port(name, port) for name, port in self._numbers.items()]
        named = [(item.status, self.listed.get(item.name)) for item in found]
        reported = {state for status, state in named if status == "fault"}
        # The warning about who listens in place of one that was stopped by hand is enough.
        reported |= {one for status, one in named if status == "warning" and one and one.has_ended}
        states = self.listed.values()
        long_running = [one for one in states if one.service in {*LISTENERS, "reload"}]
        failed = {one for one in long_running if one.has_failed or one.name in self._crashing}
        for state in failed - reported:
            note = f"exit code {state.exit_code}, {state.restarts} restarts"
            remedy = self._log(state.name)
            if state.has_ended:
                remedy += f"; platform process start {state.name}"
            found.append(Finding(state.name, state.status, "fault", note, remedy))
        return found + self._removed()

    def _removed(self) -> list[Finding]:
        """Processes of the running stack that the code no longer has, as after `git checkout`."""
        note, remedy = "not in the code as it is now", "`platform down`, then `platform up -D`"
        states = dict.fromkeys(self.listed.values())
        known = ALL_PROCESSES | unsynced.own_processes()
        removed = [one for one in states if known.isdisjoint({one.name, one.service})]
        failing = {one.name for one in removed if one.has_crashed} | self._crashing
        return [
            Finding(
                one.name, one.status, "fault" if one.name in failing else "warning", note, remedy
            )
            for one in removed
        ]

    def _port(self, name: str, port: int) -> Finding:
        holder = self._holders.get(name)
        if holder is None and self._supervised:
            state = self.listed.get(name.removesuffix(" bus"))
            if state and state.is_running and state.is_ready:
                # Perhaps only since the ports were inspected.
                holder = processes.holders({name: port}, self._checkout.merged).get(name)
            if holder is None:
                return self._missing(name, port, state)
        if holder is None:
            return Finding(name, str(port), note="free")
        if holder.state == self._state:
            if holder.process == name.removesuffix(" bus"):
                return Finding(name, str(port), note=f"ours: {holder}")
            note = f"held by {holder.process} of this stack: {holder}"
            return Finding(name, str(port), "fault", note, self._log(name))
        if self._supervised:
            note = f"{holder}, not of this stack: started by you instead?"
            return Finding(name, str(port), "warning", note)
        remedy = f"end it, or start with PLATFORM_PORT={free_block(self._first) or '...'}"
        return Finding(name, str(port), "fault", f"held by {holder.with_stack}", remedy)

    def _missing(self, name: str, port: int, state: ProcessState | None) -> Finding:
        if name == CONSOLE.name and self._environ.get("CONSOLE") == "off":
            return Finding(name, str(port), note="the stack was started without it")
        if state and state.status == "Disabled":
            return Finding(name, str(port), note="not among the started processes")
        node = name.removesuffix(" bus")
        if node != name and node not in self._holders:
            return Finding(name, str(port), note=f"see {node}")
        if state and state.is_running and not state.is_ready and state.name not in self._crashing:
            return Finding(name, str(port), "warning", "starting", self._log(name))
        note, remedy = "not listening", self._log(name)
        if self.listed and not state:
            note, remedy = "not in the running stack", "`platform down`, then `platform up -D`"
        elif state and (state.is_running or state.is_pending or state.status == "Restarting"):
            note += f": {state.status}, {state.restarts} restarts"  # it cannot be started
        else:
            remedy += f"; platform process start {state.name if state else name}"
        return Finding(name, str(port), "fault", note, remedy)

    def left_behind(self) -> list[Finding]:
        """Processes of this checkout's stack without a supervisor."""
        if not self._orphans:
            return [Finding("left behind", "nothing")]
        named = "; ".join(map(str, self._orphans))
        remedy = "`platform down` ends them, and so does the next start"
        return [Finding("left behind", named, "fault", "their supervisor was killed", remedy)]

    def health(self) -> list[Finding]:
        """The health of each HTTP process."""
        ours = filter(self._may_be_ours, self._holders)
        names = [name for name in ours if not name.startswith("redis")]
        if not names:
            down = Finding("stack", "not running", "note", "start: `platform up`")
            return [] if self._supervised else [down]
        with ThreadPoolExecutor(len(names)) as pool:
            return list(pool.map(self._health, names))

    def _health(self, name: str) -> Finding:
        started = time.monotonic()
        try:
            response = self._get(name, "/health")
        except httpx.HTTPError as error:
            return Finding(name, "no response", "fault", type(error).__name__, self._log(name))
        if response.status_code == 200:
            ms = (time.monotonic() - started) * 1000
            return Finding(name, "pass", note=f"{ms:.0f} ms")
        note, value = _failing(response), str(response.status_code)
        return Finding(name, value, "fault", note, self._log(name))

    def _get(self, name: str, path: str) -> httpx.Response:
        url = f"http://127.0.0.1:{self._numbers[name]}{path}"
        return httpx.get(url, timeout=_RESPONSE_SECONDS_MAX, trust_env=False)

    def psp(self) -> list[Finding]:
        """A fault while the connector charges nothing."""
        with contextlib.suppress(httpx.HTTPError):
            if "\npsp_paused 1.0" in self._get("psp-connector", "/metrics").text:
                given = {**self._checkout.merged, **self._environ}
                proxies = [name for name in given if name.lower().endswith("_proxy")]
                names = ["PSP_URL", "PSP_API_KEY", *(proxies if given.get("PSP_URL") else [])]
                remedy = f"are {', '.join(names)} right? {self._log('psp-connector')}"
                return [Finding("PSP", "unavailable", "fault", "charging is paused", remedy)]
        return []

    def changed(self) -> list[Finding]:
        """Services whose settings differ from those of the next start."""
        findings = []
        for service, settings in SETTINGS.items():
            holder = self._holders.get(service)
            if holder is None or holder.state != self._state:
                continue
            with contextlib.suppress(psutil.Error):
                current = psutil.Process(holder.pid).environ()
                following = environment.environment(
                    service, self._first, self._checkout.state, self._checkout.merged
                )
                names = [
                    name
                    for name in settings.variables()
                    # The same file may have different paths.
                    if name not in SET_BY_THE_STACK and not name.endswith("_FILE")
                    if current.get(name, "") != following.get(name, "")
                ]
                if names:
                    note = f"was started with other settings: {', '.join(names)}"
                    remedy = "to apply them: `platform down`, then `platform up`"
                    findings.append(Finding(service, "pass", "note", note, remedy))
        return findings

    def redis(self) -> list[Finding]:
        """Whether the services' Redis keeps accepted transactions."""
        variables = self._checkout.merged
        is_own = has_own_redis(variables)
        if is_own and not self._may_be_ours("redis"):
            lines = preflight.other_data(self._checkout.state, variables)
            faults = [Finding(line, "", "fault") for line in lines]
            return [Finding("redis", "not running", "note"), *faults]
        unreachable = "is REDIS_URL right, and is it reachable from here?"
        return data.redis(self._checkout, self._log("redis") if is_own else unreachable)


def _failing(response: httpx.Response) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        checks = response.json().get("checks", {})
        return "failing: " + ", ".join(name for name, result in checks.items() if result != "pass")
    return "no health document"
