"""`python -m services.preflight.ready`: the stack's last process, when all others are healthy.

Says how long each took from its start to its first good health check (services/ready.sh noted
both moments), where it is, and what to type next. `up -D` shows the same.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from services.address import DEFAULT_PORT, PORT_OFFSETS, noted_port, state_folder
from services.preflight.ports import localhost

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NEXT = """\
Next, in another shell (`nix develop`):
  merchant pay 1250 USD --as alice      send a payment through it, and see each hop
  merchant smoke                        check all of it
  platform down                         stop it
"""


def report(environ: Mapping[str, str]) -> str:
    """The screen a newcomer sees."""
    folder = state_folder(environ)
    notes = folder / "ready"
    first = noted_port(folder) or DEFAULT_PORT
    lines = [_line(name, first + offset, notes) for name, offset in PORT_OFFSETS.items()]
    took = [_seconds(notes / "preflight", notes / name) or 0.0 for name in PORT_OFFSETS]
    return (
        f"The platform is healthy, {max(took):.1f} s after its start: http://127.0.0.1:{first}\n"
        + "".join(lines)
        + about_localhost(localhost())
        + _NEXT
    )


def _line(name: str, port: int, notes: Path) -> str:
    seconds = _seconds(notes / f"{name}.began", notes / name)
    shown = "?" if seconds is None else f"{seconds:.2f}"
    scheme = "redis" if name == "redis" else "http"
    return f"  {name:<14} {shown:>5} s   {scheme}://127.0.0.1:{port}\n"


def _seconds(began: Path, ended: Path) -> float | None:
    try:
        return max(ended.stat().st_mtime - began.stat().st_mtime, 0.0)
    except FileNotFoundError:
        return None


def about_localhost(addresses: set[str]) -> str:
    """A line for a machine whose `localhost` is the IPv6 loopback alone, or nothing."""
    if "127.0.0.1" in addresses:
        return ""
    return "On this machine `localhost` is not 127.0.0.1: write 127.0.0.1 in its place.\n"


if __name__ == "__main__":
    sys.stdout.write(report(os.environ))
