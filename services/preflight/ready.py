"""`python -m services.preflight.ready`: the stack's last process, when all others are healthy.

Says how long each took from its start to its first good health check (services/ready.sh noted
the moment), where it is, and what to type next.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from services.preflight import checks, plan, ports

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMES = {"redis": "redis"}


def report(environ: Mapping[str, str]) -> str:
    """The screen a newcomer sees."""
    first = checks.first_port(environ)
    ready = Path(environ.get("PLATFORM_STATE") or ".state") / "ready"
    found = ports.holders(first + offset for offset in plan.PORT_OFFSETS.values())
    lines = []
    seen: list[float] = []
    for name, offset in sorted(plan.PORT_OFFSETS.items(), key=lambda item: -item[1]):
        port = first + offset
        holder, stamp = found.get(port), ready / name
        took = "?"
        if holder and stamp.exists():
            moment = stamp.stat().st_mtime
            took = f"{max(moment - holder.started, 0):.2f}"
            seen.append(moment)
        scheme = _SCHEMES.get(name, "http")
        lines.append(f"  {name:<14} {took:>5} s   {scheme}://127.0.0.1:{port}")
    begun = (ready / "preflight").stat().st_mtime if (ready / "preflight").exists() else None
    total = f" {max(seen) - begun:.1f} s after the start" if seen and begun else ""
    head = f"The platform is healthy{total}: http://localhost:{first}"
    return "\n".join([head, *lines, _next_steps(first)]) + "\n"


def _next_steps(first: int) -> str:
    port = "" if first == 8000 else f"PLATFORM_PORT={first} "
    return f"""Next, in another shell (`nix develop`):
  {port}merchant pay 1250 USD --as alice
  process-compose run smoke         process-compose down"""


if __name__ == "__main__":
    sys.stdout.write(report(os.environ))
