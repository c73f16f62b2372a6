"""Reads the log files of services, router, Redis and process-compose.

The patterns come from lnav's format file, so that both read the same.
"""

import contextlib
import functools
import gzip
import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from devtools.catalog import ALL_PROCESSES

LEVELS = ("debug", "info", "warning", "error")

# Some 270 lines of a process: parsing them takes 7 ms.
_BYTES_MAX = 64 * 1024

_FORMAT: Any = json.loads(
    (Path(__file__).parent / "lnav/formats/platform/format.json").read_text()
)["platform_log"]
_PATTERNS = [
    re.compile(regex["pattern"].replace("(?<", "(?P<")) for regex in _FORMAT["regex"].values()
]
_TIMES = [time.replace("%L", "%f") for time in _FORMAT["timestamp-format"]]
# What a line that another program wrote may raise.
_UNREADABLE = (
    ValueError, LookupError, TypeError, AttributeError, OverflowError, StopIteration,
    RecursionError,
)  # fmt: skip
_IDS = ("request_id", "transaction_id")
# As `id=a`, or `"id": "a"` in JSON.
_ID = re.compile(rb'(?:request|transaction)_id[":= ]{1,4}([\w.-]+)')
_FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|\S*)')


@dataclass(frozen=True)
class Line:
    """One log line; values of `fields` are text."""

    at: datetime
    level: str
    fields: Mapping[str, str]
    """Includes `event` and, except for Redis and process-compose, `service`."""


def process_of(path: Path) -> str:
    """The process that wrote a file, even if rotated (core-api-2026-11-24T13-19.log.gz)."""
    return re.split(r"-20\d\d-\d\d-\d\dT|\.log", path.name)[0]


def file_of(state: Path, process: str) -> Path:
    """The log file of a process, or of one of its replicas."""
    service, _, replica = process.rpartition("-")
    if process in ALL_PROCESSES or not replica.isdigit():
        return state / f"logs/{process}.log"
    return state / (f"logs/{service}.log" + ("" if replica == "0" else f".{replica}"))


def latest(folder: Path) -> list[Line]:
    """The last lines of each process, in time order."""
    lines: list[Line] = []
    for path in folder.glob("*.log"):
        with contextlib.suppress(OSError):
            status = path.stat()
            lines += _end(path, status.st_size, status.st_mtime_ns)
    return sorted(lines, key=lambda line: line.at)


@functools.lru_cache(maxsize=24)  # twice the processes; about 300 KB each
def _end(path: Path, size: int, _modified_ns: int) -> list[Line]:
    """The last whole lines of a file of this size, at most _BYTES_MAX; cached until it changes."""
    with path.open("rb") as file:
        file.seek(max(size - _BYTES_MAX, 0))
        whole, _, _partial = file.read(_BYTES_MAX).rpartition(b"\n")
    return _with_continuations(whole.decode("utf-8", "replace").splitlines(), path)


def _with_continuations(texts: list[str], path: Path) -> list[Line]:
    """Parses the lines; text without a time gets the time of the line before."""
    lines: list[Line] = []
    for text in texts:
        if line := parse(text):
            lines.append(replace(line, fields={"service": process_of(path), **line.fields}))
        elif lines and text.strip():
            level = "error" if begins_error(text) else lines[-1].level
            fields = {"service": lines[-1].fields["service"], "event": text}
            lines.append(replace(lines[-1], level=level, fields=fields))
    return lines


def begins_error(text: str) -> bool:
    """Whether text without a time is the error that ends a program which cannot log (yet).

    Other text without a time belongs to the line before, as a traceback of our logs does.
    """
    return text.startswith(("Traceback (most recent call last)", "panic: ", "fatal error: "))


def about(folder: Path, transaction_id: str) -> list[Line]:
    """All lines about a transaction and the requests that changed it, in time order."""
    ids = requests(folder, transaction_id)
    lines = [line for line in find(folder, {transaction_id, *ids}) if not _reads(line)]
    return sorted(lines, key=lambda line: line.at)


def requests(folder: Path, transaction_id: str) -> set[str]:
    """The ids of the requests that changed a transaction."""
    lines = [line for line in find(folder, {transaction_id}) if not _reads(line)]
    return {line.fields["request_id"] for line in lines if line.fields.get("request_id")}


def _reads(line: Line) -> bool:
    return line.fields.get("method") in {"GET", "HEAD"}


def find(folder: Path, ids: Collection[str]) -> Iterator[Line]:
    """All lines of these requests and transactions, including rotated files, in no order."""
    needles = {id_.encode() for id_ in ids}
    for path in folder.glob("*.log*"):
        # A file may be rotated while it is read, and a compressed one may be truncated.
        with contextlib.suppress(OSError, EOFError, zlib.error), _open(path) as file:
            for text in file:
                # Parsing takes ten times as long.
                if not needles.isdisjoint(_ID.findall(text)):
                    line = parse(text.decode("utf-8", "replace"))
                    if line and any(line.fields.get(name) in ids for name in _IDS):
                        yield line


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def plain(text: str) -> str:
    """The text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def parse(text: str) -> Line | None:
    """Parses a line; None for a continuation, as in a traceback."""
    text = plain(text.rstrip("\n"))
    with contextlib.suppress(*_UNREADABLE):
        if text.startswith("{"):
            fields = json.loads(text)
            at = datetime.fromisoformat(fields.pop("time"))
            at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
            return Line(at, _level(fields.pop("level")), {"event": "", **_as_text(fields)})
        for pattern in _PATTERNS:
            if match := pattern.match(text):
                groups = match.groupdict()
                at, level = _time(groups["timestamp"]), _level(groups["level"])
                service = {"service": groups["service"]} if "service" in groups else {}
                return Line(at, level, {**service, **_fields(groups["body"])})
    return None


def _fields(body: str) -> dict[str, str]:
    event, _, router = body.partition("\t")
    if router:
        return {"event": event, **_as_text(json.loads(router))}
    fields = {name: _text(value) for name, value in _FIELD.findall(body)}
    return {"event": _FIELD.split(body, 1)[0], **fields}


def _text(value: str) -> str:
    return _valid(json.loads(value)) if value.startswith('"') else value


def _valid(text: str) -> str:
    """The text without lone surrogates, which JSON permits and which cannot be printed."""
    return text.encode("utf-8", "replace").decode()


def _as_text(fields: Mapping[str, object]) -> dict[str, str]:
    """Converts values to text, with at most three decimals."""
    short = {k: round(v, 3) if isinstance(v, float) else v for k, v in fields.items()}
    return {_valid(k): _valid(v) if isinstance(v, str) else json.dumps(v) for k, v in short.items()}


def _time(text: str) -> datetime:
    for format_ in _TIMES:
        with contextlib.suppress(ValueError):
            return datetime.strptime(text, format_).replace(tzinfo=UTC)
    raise ValueError(text)


def _level(text: str) -> str:
    levels: Mapping[str, str] = _FORMAT["level"]
    return next(level for level, regex in levels.items() if re.match(regex, text))
