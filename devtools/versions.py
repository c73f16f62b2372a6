"""Versions of the programs, compared with the pin."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devtools.findings import Status

_ANSWER_SECONDS_MAX = 5
_ROOT = Path(__file__).parents[1]
_NUMBER = re.compile(r"(?<![\d.])(\d+(?:\.\d+)+)")
_START = "start from `nix develop`, or with `nix run`"


@dataclass(frozen=True)
class Program:
    """How to get a program's version, and the versions that the stack was tested with."""

    name: str
    questions: Sequence[Sequence[str]]
    pin: str = ""
    tried: tuple[tuple[int, int], tuple[int, int]] | None = None
    needed: bool = True


PROGRAMS = (
    Program("redis-server", [["--version"]], "redis", ((7, 0), (8, 99))),
    Program("redis-cli", [["--version"]], "redis", ((7, 0), (8, 99))),
    # Built by `go install`, Caddy reports its version only as that of its module.
    Program("caddy", [["version"], ["build-info"]], "caddy", ((2, 11), (2, 11))),
    Program(
        "process-compose", [["version", "--short"]], "process-compose", ((1, 100), (1, 122))
    ),
    Program("curl", [["--version"]]),
    Program("nix", [["--version"]], needed=False),
)  # fmt: skip
_PYTHON = Program("python", [], "python", ((3, 11), (3, 14)))


def pinned() -> Mapping[str, str]:
    """The versions in the nixpkgs that flake.lock pins, as far as known."""
    known: Mapping[str, str] = json.loads((_ROOT / "nix/host/pinned.json").read_text("utf-8"))
    return known


def findings(environ: Mapping[str, str]) -> list[Finding]:
    """One finding per program."""
    python = Path(sys.executable).resolve()
    from_pin = python.is_relative_to("/nix/store")
    version = platform.python_version()
    found = [_judged(_PYTHON, version, from_pin=from_pin)]
    with ThreadPoolExecutor(len(PROGRAMS)) as pool:
        found += pool.map(lambda program: _finding(program, environ, from_pin=from_pin), PROGRAMS)
    return found


def _finding(program: Program, environ: Mapping[str, str], *, from_pin: bool) -> Finding:
    path = shutil.which(program.name, path=environ.get("PATH", ""))
    if path is None and program.needed:
        return Finding("programs", program.name, "missing", "fault", "not on PATH", _START)
    if path is None:
        return Finding("programs", program.name, "missing", "note", "only needed to build")
    stored = Path(path).resolve().is_relative_to("/nix/store")
    text = ""
    for question in program.questions:
        text = _answer([path, *question], environ)
        if _NUMBER.search(text):
            break
    match = re.search(r"caddy/v2\s+v(\S+)", text) or _NUMBER.search(text)
    return _judged(program, match[1] if match else "unknown", from_pin=from_pin and stored)


def _answer(command: Sequence[str], environ: Mapping[str, str]) -> str:
    # process-compose would truncate the stack's log file.
    given = {**environ, "PC_LOG_FILE": "/dev/null"}
    try:
        done = subprocess.run(  # noqa: S603 - the programs of PROGRAMS, as PATH has them
            command,
            env=given,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _judged(program: Program, version: str, *, from_pin: bool) -> Finding:
    note, status = _against_pin(program, version, from_pin=from_pin)
    numbers = re.findall(r"\d+", version)[:2]
    if program.tried and len(numbers) == 2:
        lowest, highest = program.tried
        if not lowest <= (int(numbers[0]), int(numbers[1])) <= highest:
            shown = ".".join(map(str, lowest))
            cure = f"take the one of the flake: {_START}"
            return Finding("programs", program.name, version, "fault", f"needs {shown} on", cure)
    if version == "unknown" and program.needed:
        status, note = "warning", "version not recognised"
    return Finding("programs", program.name, version, status, note)


def _against_pin(program: Program, version: str, *, from_pin: bool) -> tuple[str, Status]:
    if not program.pin:
        return "not of the pin", "ok"
    if from_pin:
        return "of the pin", "ok"
    wanted = pinned()[program.pin]
    return ("as pinned", "ok") if version == wanted else (f"the pin has {wanted}", "note")
