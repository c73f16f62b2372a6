"""`platform status`: shows every process of this checkout's stack, with its port and health."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from devtools.address import noted_port, state_folder
from devtools.catalog import LISTENERS
from devtools.ready import is_healthy
from devtools.supervisor import ProcessState, Supervisor, SupervisorError
from devtools.terminal import Output, columns
from services.common.command import run_main


def row(state: ProcessState, first_port: int) -> tuple[str, ...]:
    """One line of the screen."""
    service = LISTENERS.get(state.service)
    port, health = "", ""
    if service and state.is_running:
        number = service.port(first_port, state.replica)
        port = str(number)
        health = "" if service.name == "redis" else "pass" if is_healthy(number) else "FAIL"
    restarts = f"{state.restarts} restarts" if state.restarts else ""
    has_exit_code = state.exit_code and not state.is_running
    exit_code = f"exit code {state.exit_code}" if has_exit_code else ""
    return state.name, state.status, port, health, restarts or exit_code


def _by_port(cells: tuple[str, ...]) -> tuple[bool, str, str]:
    name, _status, port, *_ = cells
    return not port, port, name


def main(environ: Mapping[str, str]) -> int:
    """Prints the screen; 1 when no stack of this checkout runs."""
    try:
        states = Supervisor(environ.get("PC_SOCKET_PATH", "")).processes()
    except SupervisorError:
        sys.stdout.write("no stack of this checkout is running: `platform up -D` starts one\n")
        return 1
    first_port = noted_port(state_folder(environ)) or 0
    with ThreadPoolExecutor(len(states)) as pool:
        rows = sorted(pool.map(lambda state: row(state, first_port), states), key=_by_port)
    output = Output(sys.stdout, environ)
    for cells, line in zip(rows, columns(rows), strict=True):
        output.say(line, cells[3])
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(lambda: main(os.environ)))
