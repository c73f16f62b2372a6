"""`python -m services.preflight`: the stack's first process; the others wait for it.

Makes the state folder and the secret, checks programs, settings and ports. Says everything that
is wrong in one go, each with its cure, and leaves with 78 (EX_CONFIG), which stops the stack.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from services.preflight import checks
from services.settings import EXIT_BAD_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping


def faults(environ: Mapping[str, str]) -> list[str]:
    """Everything that would keep the stack from starting, a line each."""
    state = Path(environ.get("PLATFORM_STATE") or ".state")
    found = checks.prepare(state) + checks.missing_programs(environ)
    try:
        first = checks.first_port(environ)
    except ValueError as error:
        return [*found, str(error)]
    if (state / "jwt-secret").exists():
        found += checks.wrong_settings(first, state, environ)
    return found + checks.busy_ports(first, state)


def main() -> int:
    """Checks; returns the exit code."""
    found = faults(os.environ)
    if not found:
        sys.stdout.write("preflight: state folder, programs, settings and ports are in order\n")
        return 0
    lines = "".join(f"  {fault}\n" for fault in found)
    sys.stderr.write(f"preflight: the stack cannot start\n{lines}")
    return EXIT_BAD_SETTINGS


if __name__ == "__main__":
    raise SystemExit(main())
