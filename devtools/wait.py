"""`python -m devtools.wait`: waits until the stack is healthy, for `platform up -D`.

process-compose's own `project is-ready --wait` has no time limit, and its `up -D` does not wait.
Prints the report of the process `ready`; or, with exit code 1, each process that is not ready in
time and the end of its log.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from devtools.address import PORT_OFFSETS, state_folder
from devtools.supervisor import ProcessState, Supervisor, SupervisorError
from services.common.command import run_main

HEALTHY_SECONDS_MAX = 60
POLL_SECONDS = 0.1
RESTARTS_MAX = 3  # a process that ended this often before it was ready will not recover
LOG_LINES = 15
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # of process-compose


def faults(states: Sequence[ProcessState]) -> dict[str, str]:
    """Why processes are not ready; those waiting for others only if nothing else is wrong."""
    found = {}
    for state in states:
        if state.name in PORT_OFFSETS and state.is_running and not state.is_ready:
            found[state.name] = "runs, but is not ready"
        elif state.has_failed:
            found[state.name] = f"ended with code {state.exit_code}"
    waiting = {state.name: "waits for others" for state in states if state.is_pending}
    return found or waiting


def log_tail(state_dir: Path, name: str) -> str:
    """The last lines of a process's log, indented."""
    log = state_dir / "logs" / f"{name}.log"
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            tail = (_COLOUR.sub("", line.rstrip()) for line in deque(lines, LOG_LINES))
            return "".join(f"    {line}\n" for line in tail)
    except OSError:
        return f"    (nothing in {log})\n"


def say_why(state_dir: Path, reasons: Mapping[str, str]) -> None:
    """Names each process that is not ready, with the end of its log."""
    for name, reason in reasons.items():
        log = log_tail(state_dir, name)
        sys.stderr.write(f"platform: {name} {reason}; the end of its log:\n{log}")


def say_gone(state_dir: Path) -> None:
    """Prints why process-compose has ended, such as a failed check of preflight."""
    _, found, text = log_tail(state_dir, "preflight").rpartition(
        "    preflight: the stack cannot start\n"
    )
    if found:
        lines = textwrap.indent(textwrap.dedent(text), "  ")
        sys.stderr.write(f"platform: the stack cannot start\n{lines}")
    else:
        say_why(state_dir, {"process-compose": "has ended or does not respond"})
        sys.stderr.write("platform: `doctor` finds causes that no log has, such as a full disk\n")


def wait(supervisor: Supervisor, state_dir: Path) -> int:
    """Waits until the process `ready` is done; returns the exit code."""
    deadline = time.monotonic() + HEALTHY_SECONDS_MAX
    while True:
        try:
            states = supervisor.processes()
        except SupervisorError:
            say_gone(state_dir)
            return 1
        if any(state.name == "ready" and state.has_succeeded for state in states):
            sys.stdout.write((state_dir / "logs" / "ready.log").read_text(encoding="utf-8"))
            return 0
        crashing = {
            state.name: f"has ended {state.restarts} times"
            for state in states
            if state.restarts >= RESTARTS_MAX and not state.is_ready
        }
        late = time.monotonic() > deadline
        if crashing or late or any(state.name == "ready" and state.has_failed for state in states):
            if late:
                sys.stderr.write(f"platform: not healthy within {HEALTHY_SECONDS_MAX} s\n")
            say_why(state_dir, crashing or faults(states))
            sys.stderr.write("platform: still up: `doctor` checks it, `platform down` stops it\n")
            return 1
        time.sleep(POLL_SECONDS)


def main(environ: Mapping[str, str]) -> int:
    """Waits; Ctrl-C ends only the wait, not the stack."""
    try:
        return wait(Supervisor(environ["PC_SOCKET_PATH"]), state_folder(environ))
    except KeyboardInterrupt:
        sys.stderr.write("platform: the stack is still starting: `platform down` stops it\n")
        return 130


if __name__ == "__main__":
    sys.exit(run_main(lambda: main(os.environ)))
