"""`python -m devtools.ready`: the stack's last process, which reports that it is healthy.

process-compose starts it when every process has logged that it is ready. It waits for the health
checks, which also cover an external Redis, then prints start-up times and next steps. `up -D` shows
the same.
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress

from devtools.address import DEFAULT_PORT, PORT_OFFSETS, noted_port, state_folder
from devtools.catalog import CONSOLE
from devtools.supervisor import ProcessState, Supervisor, SupervisorError

HEALTHY_SECONDS_MAX = 30.0
_RESPONSE_SECONDS_MAX = 5.0
_POLL_SECONDS = 0.05

_NEXT = """\
Next, in the development shell (`./nixw develop`):
  merchant pay 1250 USD --as alice      send a payment through it, and see each hop
  merchant smoke                        check all of it
  platform down                         stop it
"""


def unhealthy(first_port: int) -> list[str]:
    """The HTTP processes whose health check still fails after a bounded wait."""
    deadline = time.monotonic() + HEALTHY_SECONDS_MAX
    left = [name for name in PORT_OFFSETS if name != "redis"]
    while left := [name for name in left if not is_healthy(first_port + PORT_OFFSETS[name])]:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    return left


def is_healthy(port: int) -> bool:
    """Whether the health check at this port of the loopback passes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_RESPONSE_SECONDS_MAX)
    with suppress(OSError, http.client.HTTPException), closing(connection):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def report(first_port: int, states: Sequence[ProcessState], *, has_console: bool = False) -> str:
    """The greeting: addresses, and seconds from start to ready where known."""
    by_name = {state.name: state for state in states}
    lines = [
        _line(name, first_port + offset, by_name.get(name)) for name, offset in PORT_OFFSETS.items()
    ]
    began = [state.started_at for state in states if state.started_at]
    ended = [state.ready_at for state in states if state.ready_at and state.name in PORT_OFFSETS]
    took = f", {(max(ended) - min(began)).total_seconds():.1f} s after its start" if ended else ""
    console = f"Console: http://127.0.0.1:{CONSOLE.port(first_port)}\n" if has_console else ""
    healthy = f"The platform is healthy{took}: http://127.0.0.1:{first_port}\n"
    return healthy + "".join(lines) + console + _NEXT


def _line(name: str, port: int, state: ProcessState | None) -> str:
    took = ""
    if state and state.started_at and state.ready_at:
        took = f"{(state.ready_at - state.started_at).total_seconds():.2f} s"
    scheme = "redis" if name == "redis" else "http"
    return f"  {name:<14} {took:>7}   {scheme}://127.0.0.1:{port}\n"


def main(environ: Mapping[str, str]) -> int:
    """Waits for the health checks and prints the report; returns 1 if one keeps failing."""
    first_port = noted_port(state_folder(environ)) or DEFAULT_PORT
    if left := unhealthy(first_port):
        sys.stderr.write(f"not healthy: {', '.join(left)}: see `doctor`\n")
        return 1
    try:
        states = Supervisor(environ.get("PC_SOCKET_PATH", "")).processes()
    except SupervisorError:
        states = []  # process-compose runs without its socket
    has_console = environ.get("CONSOLE") != "off"
    sys.stdout.write(report(first_port, states, has_console=has_console))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(os.environ))
