"""One process of process-compose.yaml by itself, with the command and the probe it has there."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import yaml

from bench.errors import MeasureError
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_READY_SECONDS_MAX = 30
_EXPANSION = re.compile(r"\$\$|\$\{(\w+)(?::-([^}]*))?\}")


def processes(path: Path) -> dict[str, Any]:
    """What the file says of each process that has a probe."""
    everything = yaml.safe_load(path.read_text())["processes"]
    return {name: said for name, said in everything.items() if "readiness_probe" in said}


def expand(text: str, environ: Mapping[str, str]) -> str:
    """As process-compose does it: `${X}`, `${X:-default}`, and `$$` for a dollar."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return environ.get(found[1]) or found[2] or ""

    return _EXPANSION.sub(value, text)


@contextlib.contextmanager
def alone(
    name: str, said: Mapping[str, Any], environ: Mapping[str, str], folder: Path
) -> Iterator[float]:
    """Runs it; gives the seconds from its start until its probe succeeded."""
    for note in (folder / "ready").glob(f"{name}*"):
        note.unlink()
    began = time.perf_counter()
    with support.program(
        ["bash", "-c", expand(said["command"], environ)],
        environ={**environ, "PC_REPLICA_NUM": "0"},
        output=folder / f"{name}.log",
    ):
        probe = expand(said["readiness_probe"]["exec"]["command"], environ)
        done = subprocess.run(
            ["bash", "-c", probe], env={**environ, "PC_REPLICA_NUM": "0"}, cwd=support.ROOT,
            stdin=subprocess.DEVNULL, timeout=_READY_SECONDS_MAX, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            raise MeasureError(f"{name} did not become healthy by itself")
        yield seconds
