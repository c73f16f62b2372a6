"""One process of process-compose.yaml by itself, with the command and ready line it has there."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Any

import yaml

from bench.errors import MeasureError
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_READY_SECONDS_MAX = 30
_POLL_SECONDS = 0.005
_EXPANSION = re.compile(r"\$\$|\$\{(\w+)(?::-([^}]*))?\}")


def processes(path: Path) -> dict[str, Any]:
    """The definition of each process with a ready line, by name."""
    everything = yaml.safe_load(path.read_text())["processes"]
    return {name: process for name, process in everything.items() if "ready_log_line" in process}


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Expands variables as process-compose does: `${X}`, `${X:-default}`, and `$$` for a dollar."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return environ.get(found[1]) or found[2] or ""

    return _EXPANSION.sub(value, text)


@contextlib.contextmanager
def alone(
    name: str, process: Mapping[str, Any], environ: Mapping[str, str], folder: Path
) -> Iterator[float]:
    """Runs it; returns the seconds from its start to its ready line."""
    log = folder / f"{name}.log"
    log.unlink(missing_ok=True)  # of the run before, with its ready line
    began = time.perf_counter()
    with support.program(
        ["bash", "-c", expand(process["command"], environ)],
        environ={**environ, "PC_REPLICA_NUM": "0"},
        output=log,
    ):
        while process["ready_log_line"] not in log.read_text():
            if time.perf_counter() - began > _READY_SECONDS_MAX:
                raise MeasureError(f"{name} did not become ready by itself")
            time.sleep(_POLL_SECONDS)
        yield time.perf_counter() - began
