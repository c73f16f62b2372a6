"""Reads `.env`, and refuses each line that another reader would take otherwise.

process-compose reads the file itself. A line that it cannot read makes it drop the *whole* file
without a word, and some lines give it another value than they seem to (`KEY=  # why`: the value is
`# why`). No library reads exactly as it does, so only what all readers take alike is accepted, and
the rest is told by its line, never with its value, which may be a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BYTES_MAX = 65_536
_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)", re.ASCII)
_COMMENT = r"[ \t]*(?:#.*)?"
_SINGLE = re.compile(rf"'([^']*)'{_COMMENT}")
_DOUBLE = re.compile(rf'"([^"]*)"{_COMMENT}')


@dataclass(frozen=True)
class DotEnv:
    """What the file sets, and what is wrong with it."""

    values: Mapping[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class _LineError(Exception):
    """Why a line is refused."""


def read(path: Path) -> DotEnv:
    """The file's settings; no file sets none."""
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return DotEnv()
    except OSError as error:
        return DotEnv(faults=[f"{path.name} cannot be read: {error.strerror}"])
    if len(raw) > BYTES_MAX:
        return DotEnv(faults=[f"{path.name} has more than {BYTES_MAX} bytes: is that the file?"])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return DotEnv(faults=[f"{path.name} is not UTF-8 text: save it as UTF-8"])
    return parse(text, path.name)


def checkout(environ: Mapping[str, str]) -> Path:
    """The checkout that a command typed here means: the one around the working folder, if any."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "process-compose.yaml").is_file() and (folder / "services").is_dir():
            return folder
    return Path(environ.get("PLATFORM_CHECKOUT") or here)


def merged(environ: Mapping[str, str]) -> dict[str, str]:
    """What process-compose would give a process of the checkout: the shell beats `.env`.

    For commands that somebody types beside a running stack, so that they mean the same Redis.
    """
    folder = checkout(environ)
    is_one = (folder / "process-compose.yaml").is_file()  # another project's .env is not ours
    return {**(read(folder / ".env").values if is_one else {}), **environ}


def parse(text: str, name: str = ".env") -> DotEnv:
    """The settings of a file with this text."""
    values: dict[str, str] = {}
    faults: list[str] = []
    warnings: list[str] = []
    if text.startswith("\ufeff"):
        faults.append(
            f"{name} begins with a byte order mark, for which process-compose drops all of it: "
            "save it as UTF-8 without one"
        )
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            pair = _pair(line.strip(" \t"))
        except _LineError as error:
            faults.append(f"{name}, line {number}: {error}")
            continue
        if pair and pair[0] in values:
            warnings.append(
                f"{name}, line {number}: {pair[0]} is set a second time; this one counts"
            )
        values |= [pair] if pair else []
    return DotEnv(values, faults, warnings)


def _pair(line: str) -> tuple[str, str] | None:
    if not line or line.startswith("#"):
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        raise _LineError("is not NAME=value (comments begin with #)")
    value = _value(match[2])
    if not value.isprintable():
        raise _LineError(f"the value of {match[1]} has an invisible character in it: type it anew")
    return match[1], value


def _value(text: str) -> str:
    if text.startswith("'"):
        match = _SINGLE.fullmatch(text)
        if match is None or match[1].endswith("\\"):
            raise _LineError("a value in single quotes ends with one, on the same line")
        return match[1]
    if text.startswith('"'):
        match = _DOUBLE.fullmatch(text)
        if match is None or "\\" in match[1] or "$" in match[1]:
            raise _LineError("a value with \" or \\ or $ in it needs single quotes: NAME='value'")
        return match[1]
    if text.startswith("#"):
        raise _LineError(
            "process-compose would take the comment for the value: give a value, or put a # "
            "before the name"
        )
    value, *comments = re.split(r"[ \t]+#", text)
    if "$" in value:
        raise _LineError("a value with a $ in it needs single quotes: NAME='value'")
    if len(comments) > 1:
        raise _LineError(
            "process-compose would end the value at the last #: leave one # in the line, or put "
            "the value in quotes"
        )
    return value.strip(" \t")
