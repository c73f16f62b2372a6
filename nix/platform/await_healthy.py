# ruff: noqa: INP001 - a script, not a package
"""Waits until every process of the stack is healthy: what `up -D` does after starting it.

process-compose's own `project is-ready --wait` waits for ever, and its `up -D` not at all. Whoever
does not come up within the bound is named, with the reason and the end of its log; exit code 1.
Else the same screen is shown that the stack's last process prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections import deque
from pathlib import Path
from typing import Any

from services.preflight import ready

HEALTHY_WITHIN_SECONDS = 60
POLL_SECONDS = 0.2
ANSWER_WITHIN_SECONDS = 5
RESTARTS_MAX = 3  # who has ended so often before it was healthy will go on so
LOG_LINES = 15
WAITS = "is Pending"

UP = {"Running", "Foreground", "Launched", "Completed", "Skipped"}


def processes() -> list[dict[str, Any]] | None:
    """Ask process-compose for all processes; None when it does not answer."""
    try:
        answer = subprocess.run(
            ["process-compose", "process", "list", "-o", "json"],  # noqa: S607 - the flake's PATH
            capture_output=True,
            check=True,
            timeout=ANSWER_WITHIN_SECONDS,
        )
        states: list[dict[str, Any]] = json.loads(answer.stdout)
    except (subprocess.SubprocessError, json.JSONDecodeError):
        return None
    return states


def fault(state: dict[str, Any]) -> str | None:
    """Say why a process does not count as healthy; the rule is that of `project is-ready`."""
    if state["status"] == "Disabled":
        return None
    if state["status"] not in UP:
        return f"is {state['status']}"
    if state.get("has_ready_probe") and state["is_ready"] != "Ready":
        return f"runs, but its probe says {state['is_ready']}"
    if state["exit_code"] != 0 and not state["is_running"]:
        return f"ended with code {state['exit_code']}"
    return None


def end_of_log(name: str) -> str:
    """Return the last lines that a process wrote, indented."""
    log = Path(os.environ["PLATFORM_STATE"], "logs", f"{name}.log")
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            return "".join(f"    {line.rstrip()}\n" for line in deque(lines, LOG_LINES))
    except OSError:
        return f"    (nothing in {log})\n"


def report(faults: dict[str, str]) -> None:
    """Name each process that is not healthy, with the end of its log."""
    # Who waits for another has said nothing yet.
    begun = {name: reason for name, reason in faults.items() if reason != WAITS}
    for name, reason in (begun or faults).items():
        sys.stderr.write(f"platform: {name} {reason}; the end of its log:\n{end_of_log(name)}")


def gone() -> None:
    """Tell why the supervisor is not there: preflight ends the stack when a check fails."""
    said = end_of_log("preflight").rpartition("    preflight: the stack cannot start\n")
    if said[1]:
        faults = textwrap.indent(textwrap.dedent(said[2]), "  ")
        sys.stderr.write(f"platform: the stack cannot start\n{faults}")
    else:
        report({"process-compose": "is gone, or does not answer"})


def wait() -> int:
    """Wait, and return the exit code."""
    deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
    faults: dict[str, str] = {}
    while time.monotonic() < deadline:
        states = processes()
        if states is None:
            gone()
            return 1
        faults = {state["name"]: why for state in states if (why := fault(state)) is not None}
        if not faults:
            sys.stdout.write(ready.report(os.environ))
            return 0
        if ended := {
            state["name"]: f"has ended {state['restarts']} times"
            for state in states
            if state["name"] in faults and state["restarts"] >= RESTARTS_MAX
        }:
            report(ended)
            sys.stderr.write("platform: the stack is still up: `platform down` stops it\n")
            return 1
        time.sleep(POLL_SECONDS)
    sys.stderr.write(f"platform: not healthy within {HEALTHY_WITHIN_SECONDS} s\n")
    report(faults)
    sys.stderr.write("platform: the stack is still up: `platform down` stops it\n")
    return 1


def main() -> int:
    """Wait; who does not want to wait any longer leaves the stack as it is."""
    try:
        return wait()
    except KeyboardInterrupt:
        sys.stderr.write("platform: the stack goes on starting: `platform down` stops it\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
