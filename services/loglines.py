"""One line of a log file, whoever wrote it: when, and what it says.

The services and the router write JSON or columns (LOG_FORMAT); Redis and process-compose have
formats of their own, with the local time of the machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services import console

Fields = Mapping[str, Any]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# 15571:M 24 Nov 2026 13:19:17.055 * Server initialized
_REDIS = re.compile(r"\d+:[A-Z] (\d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}) ([.*#-]) (.*)")
_REDIS_LEVELS = {".": "debug", "-": "debug", "*": "info", "#": "warning"}
# 26-11-24 13:19:17.055 INF Process Compose v1.110.0
_SUPERVISOR = re.compile(r"(\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) ([A-Z]{3}) (.*)")
# 2026-11-24T13:19:17.055Z<tab>INFO<tab>http.log.access<tab>handled request<tab>{"request": …
_ROUTER = re.compile(r"(\d{4}-\d\d-\d\dT\S+)\t([A-Z]+)\t(?:([\w.]+)\t)?([^\t]*)(?:\t(\{.*\}))?")

_LEVELS = {
    "trc": "debug", "dbg": "debug", "inf": "info", "wrn": "warning", "warn": "warning",
    "err": "error", "ftl": "error", "pnc": "error", "panic": "error", "dpanic": "error",
    "fatal": "error", "critical": "error",
}  # fmt: skip
# What the router tells of a request besides our fields, and nobody looks for.
_ROUTER_NOISE = frozenset({"ts", "msg", "request", "duration", "bytes_read", "user_id", "size"})


@dataclass(frozen=True)
class Line:
    """What a process said: when, and the fields of its line, as they stand there."""

    at: datetime
    process: str
    fields: Fields
    text: str = ""
    """The line itself; all there is of one that has no fields."""

    @property
    def method(self) -> str:
        """Of a line about an HTTP request; else nothing. The router nests it."""
        request = self.fields.get("request")
        fields = request if isinstance(request, dict) else self.fields
        return str(fields.get("method") or "")

    @property
    def level(self) -> str:
        """debug, info, warning or error; nothing when it does not say."""
        level = str(self.fields.get("level") or "").lower()
        return _LEVELS.get(level, level)

    def columns(self) -> dict[str, Any]:
        """The fields in our words, with the router's among them, for `console.render`."""
        at = self.at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
        head = {"time": at, "service": self.process, "level": self.level}
        fields = self.fields
        if not fields:
            return {**head, "event": self.text}
        if "ts" not in fields:
            return {**fields, **head}
        said: dict[str, Any] = {"event": fields.get("msg")}
        request, duration = fields.get("request"), fields.get("duration")
        if isinstance(request, dict):
            said = {"event": "request", "method": self.method, "path": request.get("uri")}
            said["status"] = fields.get("status")
            fields = {name: value for name, value in fields.items() if name != "logger"}
        if isinstance(duration, int | float):
            said["ms"] = round(duration * 1000, 2)
        rest = {name: value for name, value in fields.items() if name not in _ROUTER_NOISE}
        return {**said, **rest, **head}


def parse(text: bytes, process: str) -> Line | None:
    """The line, if it is one that says a time."""
    try:
        decoded = text.decode("utf-8", "replace").rstrip()
        fields = _fields(decoded)
        at = datetime.fromisoformat(fields.get("time") or fields["ts"]).astimezone(UTC)
    # No time, or one that no clock shows; a JSON text that is no object, or nested without end.
    except (ValueError, RecursionError, LookupError, AttributeError, TypeError, OverflowError):
        return None
    return Line(at, process, fields, decoded) if 2000 <= at.year < 3000 else None


def _fields(text: str) -> Fields:
    if text.startswith("{"):
        fields: Fields = json.loads(text)
        return fields
    text = _COLOURS.sub("", text)
    for reader in (console.parse, _redis, _supervisor, _router):
        if (found := reader(text)) is not None:
            return found
    return {}


def _redis(text: str) -> Fields | None:
    found = _REDIS.fullmatch(text)
    if not found:
        return None
    at = datetime.strptime(found[1], "%d %b %Y %H:%M:%S.%f").astimezone()
    return {
        "time": at.isoformat(),
        "level": _REDIS_LEVELS[found[2]],
        "event": " ".join(found[3].split()),
    }


def _supervisor(text: str) -> Fields | None:
    found = _SUPERVISOR.fullmatch(text)
    if not found:
        return None
    at = datetime.strptime(found[1], "%y-%m-%d %H:%M:%S.%f").astimezone()
    return {"time": at.isoformat(), "level": found[2].lower(), "event": " ".join(found[3].split())}


def _router(text: str) -> Fields | None:
    found = _ROUTER.fullmatch(text)
    if not found:
        return None
    at, level, logger, message, rest = found.groups()
    said = {"ts": at, "level": level.lower(), "logger": logger, "msg": message}
    return {**said, **json.loads(rest or "{}")}
