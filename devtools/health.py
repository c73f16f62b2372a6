"""The health of the running stack, for its process `ready`, `platform up -D` and `platform status`.

`python -m devtools.health` is the process `ready`. process-compose's own `project is-ready --wait`
has no time limit, and its `up -D` does not wait.
"""

import http.client
import os
import re
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from devtools.address import DEFAULT_PORT, recorded_port, state_folder
from devtools.catalog import CONSOLE, LISTENERS, SERVICES, Service
from devtools.supervisor import (
    NO_STACK,
    STOPPING_JOBS,
    ProcessState,
    Supervisor,
    SupervisorError,
    UnresponsiveError,
)
from devtools.terminal import Output, columns
from services.common.command import EXIT_INTERRUPTED, run_main

_HEALTHY_SECONDS_MAX = 30.0
_UP_SECONDS_MAX = 60
_RESPONSE_SECONDS_MAX = 5.0
_POLL_SECONDS = 0.1
_RESTARTS_MAX = 3  # a process that ended this often before it was ready will not recover
_LOG_LINES = 15
# For good: process-compose shows what was stopped before its start like what is being stopped.
_STOPPED = {"Terminating", "Skipped"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # of process-compose

_NEXT = """\
Next, in the development shell (`./nixw develop`):
  merchant pay 1250 USD --as alice      send a payment through it, and see each hop
  merchant smoke                        check all of it
  platform down                         stop it
"""


def is_healthy(port: int) -> bool:
    """Whether the health check at this port of the loopback passes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_RESPONSE_SECONDS_MAX)
    with suppress(OSError, http.client.HTTPException), closing(connection):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


# --- the process `ready`: process-compose starts it once all others have logged that they are ready


def ready(environ: Mapping[str, str]) -> int:
    """Waits for the health checks, which also cover an external Redis, and prints the report.

    Returns 1 if one keeps failing.
    """
    first_port = recorded_port(state_folder(environ)) or DEFAULT_PORT
    deadline = time.monotonic() + _HEALTHY_SECONDS_MAX
    left = [name for name in SERVICES if name != "redis"]
    while left := [name for name in left if not is_healthy(SERVICES[name].port(first_port))]:
        if time.monotonic() > deadline:
            sys.stderr.write(f"not healthy: {', '.join(left)}: see `doctor`\n")
            return 1
        time.sleep(_POLL_SECONDS)
    try:
        states = Supervisor(environ.get("PC_SOCKET_PATH", "")).processes()
    except SupervisorError:
        states = []  # process-compose runs without its socket
    sys.stdout.write(report(first_port, states, has_console=environ.get("CONSOLE") != "off"))
    return 0


def report(first_port: int, states: Sequence[ProcessState], *, has_console: bool = False) -> str:
    """The report: addresses, and seconds from start to ready where known."""
    by_name = {state.name: state for state in states}
    lines = [_line(service, first_port, by_name.get(name)) for name, service in SERVICES.items()]
    began = [state.started_at for state in states if state.started_at]
    ended = [state.ready_at for state in states if state.ready_at and state.name in SERVICES]
    took = f", {(max(ended) - min(began)).total_seconds():.1f} s after its start" if ended else ""
    console = f"Console: {CONSOLE.url(first_port)}\n" if has_console else ""
    healthy = f"The platform is healthy{took}: http://127.0.0.1:{first_port}\n"
    return healthy + "".join(lines) + console + _NEXT


def _line(service: Service, first_port: int, state: ProcessState | None) -> str:
    took = ""
    if state and state.started_at and state.ready_at:
        took = f"{(state.ready_at - state.started_at).total_seconds():.2f} s"
    return f"  {service.name:<14} {took:>7}   {service.url(first_port)}\n"


# --- `platform up -D`


def wait(environ: Mapping[str, str]) -> int:
    """Waits until `ready` is done, and prints its report, or why processes are not ready.

    Ctrl-C ends only the wait, not the stack.
    """
    try:
        return _wait(Supervisor(environ["PC_SOCKET_PATH"]), state_folder(environ))
    except KeyboardInterrupt:
        sys.stderr.write("platform: the stack is still starting: `platform down` stops it\n")
        return EXIT_INTERRUPTED


def _wait(supervisor: Supervisor, state_dir: Path) -> int:
    deadline = time.monotonic() + _UP_SECONDS_MAX
    while True:
        try:
            states = supervisor.processes()
        except SupervisorError:
            _say_gone(state_dir)
            return 1
        if any(state.name == "ready" and state.has_succeeded for state in states):
            sys.stdout.write((state_dir / "logs" / "ready.log").read_text(encoding="utf-8"))
            return 0
        if up := _chosen_up(states):
            sys.stdout.write(f"platform: ready: {', '.join(up)}\n")
            return 0
        crashing = {
            state.name: f"has ended {state.restarts} times"
            for state in states
            if state.restarts >= _RESTARTS_MAX and state.has_crashed
        }
        late = time.monotonic() > deadline
        if crashing or late or any(s.name in {"ready", "smoke"} and s.has_failed for s in states):
            if late:
                sys.stderr.write(f"platform: not healthy within {_UP_SECONDS_MAX} s\n")
            _say_why(state_dir, crashing or faults(states))
            sys.stderr.write("platform: the stack is still up: `platform down` stops it\n")
            return 1
        time.sleep(_POLL_SECONDS)


def _chosen_up(states: Sequence[ProcessState]) -> list[str]:
    """The processes of `up -D NAME...` once all are ready; empty before that, and without names."""
    chosen = [state for state in states if state.status != "Disabled"]
    # It is skipped if a process is restarted before its ready line.
    chosen = [state for state in chosen if (state.name, state.status) != ("ready", "Skipped")]
    if any(state.name == "ready" for state in chosen):
        return []
    left = [state for state in chosen if not state.has_succeeded]
    is_up = all(s.is_ready or (s.is_running and s.name == "reload") for s in left)
    return [state.name for state in left] if is_up else []


def faults(states: Sequence[ProcessState]) -> dict[str, str]:
    """Why processes are not ready; those waiting for others only if nothing else is wrong."""
    reasons = {}
    for state in states:
        if state.name in SERVICES and state.is_running and not state.is_ready:
            reasons[state.name] = "runs, but is not ready"
        elif state.has_failed:
            reasons[state.name] = f"ended with code {state.exit_code}"
        elif state.name in SERVICES and state.status in _STOPPED:
            reasons[state.name] = "was stopped before its start, or what it waits for was"
    waiting = {state.name: "waits for others" for state in states if state.is_pending}
    return reasons or waiting


def log_tail(state_dir: Path, name: str) -> str:
    """The last lines of a process's log, indented."""
    log = state_dir / "logs" / f"{name}.log"
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            tail = (_COLOUR.sub("", line.rstrip()) for line in deque(lines, _LOG_LINES))
            return "".join(f"    {line}\n" for line in tail)
    except OSError:
        return f"    (nothing in {log})\n"


def _say_why(state_dir: Path, reasons: Mapping[str, str]) -> None:
    for name, reason in reasons.items():
        log = log_tail(state_dir, name)
        sys.stderr.write(f"platform: {name} {reason}; the end of its log:\n{log}")


def _say_gone(state_dir: Path) -> None:
    """Prints why process-compose has ended, such as a failed check of preflight."""
    for job in STOPPING_JOBS:
        with suppress(OSError):
            log = (state_dir / "logs" / f"{job}.log").read_text(encoding="utf-8", errors="replace")
            _, heading, lines = log.rpartition(f"{job}: the stack cannot start\n")
            if heading:
                sys.stderr.write(f"platform: the stack cannot start\n{lines}")
                return
            # Its own messages begin with its name, unlike a traceback.
            if log and not log.splitlines()[-1].startswith(f"{job}: "):
                _say_why(state_dir, {job: "has failed"})
                return
    _say_why(state_dir, {"process-compose": "has ended or does not respond"})
    sys.stderr.write("platform: `doctor` finds other causes, such as a full disk\n")


# --- `platform status`


def status(environ: Mapping[str, str]) -> int:
    """Prints each process with its port and health; 1 when no stack of this checkout runs."""
    try:
        states = Supervisor(environ.get("PC_SOCKET_PATH", "")).processes()
    except UnresponsiveError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except SupervisorError:
        sys.stdout.write(f"{NO_STACK}\n")
        return 1
    first_port = recorded_port(state_folder(environ)) or 0
    with ThreadPoolExecutor(len(states)) as pool:
        rows = list(pool.map(lambda state: _row(state, first_port), states))
    rows.sort(key=lambda cells: (not cells[2], cells[2], cells[0]))  # by port, then by name
    output = Output(sys.stdout, environ)
    for cells, line in zip(rows, columns(rows), strict=True):
        output.say(line, cells[3])
    return 0


def _row(state: ProcessState, first_port: int) -> tuple[str, ...]:
    service = LISTENERS.get(state.service)
    port, health = "", ""
    if service and state.is_running:
        number = service.port(first_port, state.replica)
        port = str(number)
        failing = "FAIL" if state.is_ready else "starting"
        health = "" if service.name == "redis" else "pass" if is_healthy(number) else failing
    restarts = f"{state.restarts} restarts" if state.restarts else ""
    has_exit_code = state.exit_code and not state.is_running
    exit_code = f"exit code {state.exit_code}" if has_exit_code else ""
    return state.name, state.status, port, health, restarts or exit_code


if __name__ == "__main__":
    raise SystemExit(run_main(lambda: ready(os.environ)))
