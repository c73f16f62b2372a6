"""`python -m devtools.preflight`: the stack's first process; the others wait for it.

Creates the state folder and the secrets, ends orphans of a killed supervisor, checks programs,
settings and ports, and writes `environment`. Reports all faults at once, each with its remedy, and
exits with 78 (EX_CONFIG), which stops the stack.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from devtools import checkout, checks, environment, names, orphans, state
from devtools.address import (
    AUTO,
    DEFAULT_PORT,
    NODES,
    AddressError,
    chosen_port,
    has_own_redis,
    is_cluster,
    node_ports,
)
from services.common.command import run_main
from services.common.settings import EXIT_BAD_SETTINGS


def faults(environ: Mapping[str, str]) -> list[str]:
    """Everything that prevents a start, one line each."""
    here = checkout.of_stack(environ)
    folder = here.state
    found = state.prepare(folder) + orphans.rivals(folder) + checks.missing_programs(environ)
    found += names.faults(here)
    try:
        first = chosen_port(environ)
        found += checks.busy_ports(first, folder, environ)
    except AddressError as error:
        first = DEFAULT_PORT
        found.append(str(error))
    found += checks.wrong_settings(first, folder, environ) + checks.unreachable_redis(environ)
    found += checks.other_partitions(folder, environ)
    if not found:
        script = environment.script(first, folder, environ)
        nodes = NODES if is_cluster(environ) else 1
        state.write_environment(folder, script, node_ports(first, nodes))
        if has_own_redis(environ):
            state.write_partitions(folder, environ.get("PARTITIONS") or "1")
    return found


def main(environ: Mapping[str, str]) -> int:
    """Checks; returns the exit code."""
    here = checkout.of_stack(environ)
    for warning in names.warnings(here):
        sys.stdout.write(f"preflight: warning: {warning}\n")
    ended, left = orphans.clear(here.state)
    if ended:
        sys.stdout.write(f"preflight: {ended}\n")
    try:
        found = left + faults(environ)
    except OSError as error:  # a full disk, or a folder in a file's place
        found = [f"the state folder cannot be written: {error}"]
    if found:
        lines = "".join(f"  {fault}\n" for fault in found)
        sys.stderr.write(f"preflight: the stack cannot start\n{lines}")
        return EXIT_BAD_SETTINGS
    first = chosen_port(environ)
    how = ", chosen by the checkout's path" if environ.get("PLATFORM_PORT") == AUTO else ""
    sys.stdout.write(f"preflight: all is in order; the router listens on port {first}{how}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(lambda: main(os.environ)))
