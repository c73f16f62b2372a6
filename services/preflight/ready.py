"""`python -m services.preflight.ready`: the stack's last process, when all others are healthy.

Says how long each took from its start to its first good health check (services/ready.sh noted
both moments), where it is, and what to type next.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from services.preflight import checks, plan

if TYPE_CHECKING:
    from collections.abc import Mapping


def report(environ: Mapping[str, str]) -> str:
    """The screen a newcomer sees."""
    first = checks.first_port(environ)
    notes = Path(environ.get("PLATFORM_STATE") or ".state") / "ready"
    lines = []
    for name, offset in plan.PORT_OFFSETS.items():
        took = _seconds(notes / f"{name}.began", notes / name)
        shown = "?" if took is None else f"{took:.2f}"
        scheme = "redis" if name == "redis" else "http"
        lines.append(f"  {name:<14} {shown:>5} s   {scheme}://127.0.0.1:{first + offset}")
    total = max(
        (_seconds(notes / "preflight", notes / name) or 0.0 for name in plan.PORT_OFFSETS),
        default=0.0,
    )
    head = f"The platform is healthy, {total:.1f} s after its start: http://localhost:{first}"
    return "\n".join([head, *lines, _next_steps(first)]) + "\n"


def _seconds(began: Path, ended: Path) -> float | None:
    try:
        return max(ended.stat().st_mtime - began.stat().st_mtime, 0.0)
    except FileNotFoundError:
        return None


def _next_steps(first: int) -> str:
    port = "" if first == 8000 else f"PLATFORM_PORT={first} "
    return f"""Next, in another shell (`nix develop`):
  {port}merchant pay 1250 USD --as alice
  {port}platform run smoke
  platform down"""


if __name__ == "__main__":
    sys.stdout.write(report(os.environ))
