"""Versions of the programs, compared with the pin."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from devtools.findings import Finding

_RESPONSE_SECONDS_MAX = 5
_ROOT = Path(__file__).parents[1]
_NUMBER = re.compile(r"(?<![\d.])(\d+(?:\.\d+)+)")
_START = "start from `nix develop`, or with `nix run`"


@dataclass(frozen=True)
class Program:
    """How to get a program's version, and the versions that the stack was tested with."""

    name: str
    pin: str
    """Its name in nix/host/pinned.json."""
    lowest: tuple[int, int]
    highest: tuple[int, int]
    options: tuple[str, ...] = ("--version",)
    """Tried in order until one prints a version."""


PROGRAMS = (
    Program("redis-server", "redis", (7, 0), (8, 99)),
    Program("redis-cli", "redis", (7, 0), (8, 99)),
    # Built by `go install`, Caddy only reports its module's version.
    Program("caddy", "caddy", (2, 11), (2, 11), ("version", "build-info")),
    Program("process-compose", "process-compose", (1, 100), (1, 122), ("version --short",)),
)
_PYTHON = Program("python", "python", (3, 11), (3, 14))


def pinned() -> Mapping[str, str]:
    """The known versions in the nixpkgs that flake.lock pins."""
    known: Mapping[str, str] = json.loads((_ROOT / "nix/host/pinned.json").read_text("utf-8"))
    return known


def findings(environ: Mapping[str, str]) -> list[Finding]:
    """One finding per program."""
    with ThreadPoolExecutor(len(PROGRAMS)) as pool:
        found = list(pool.map(lambda program: _finding(program, environ), PROGRAMS))
    return [_judged(_PYTHON, platform.python_version(), sys.executable), *found]


def _finding(program: Program, environ: Mapping[str, str]) -> Finding:
    path = shutil.which(program.name, path=environ.get("PATH", ""))
    if path is None:
        return Finding(program.name, "missing", "fault", "not on PATH", _START)
    for options in program.options:
        text = _output([path, *options.split()], environ)
        if match := re.search(r"caddy/v2\s+v(\S+)", text) or _NUMBER.search(text):
            return _judged(program, match[1], path)
    return Finding(program.name, "unknown", "warning", "version not recognised")


def _output(command: Sequence[str], environ: Mapping[str, str]) -> str:
    try:
        return subprocess.run(  # noqa: S603 - the programs of PROGRAMS, as PATH has them
            command,
            # process-compose would truncate the stack's log file.
            env={**environ, "PC_LOG_FILE": "/dev/null"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RESPONSE_SECONDS_MAX,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _judged(program: Program, version: str, path: str) -> Finding:
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if not program.lowest <= numbers <= program.highest:
        needs = f"needs {program.lowest[0]}.{program.lowest[1]} on"
        return Finding(program.name, version, "fault", needs, f"use the flake's: {_START}")
    # With the host package set some programs are in the store, but not Python.
    if all(Path(p).resolve().is_relative_to("/nix/store") for p in (sys.executable, path)):
        return Finding(program.name, version, note="pinned")
    if version == (pin := pinned()[program.pin]):
        return Finding(program.name, version, note="as pinned")
    return Finding(program.name, version, "note", f"the pin has {pin}")
