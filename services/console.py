"""The log format for people: a line in columns, which a program can read again.

    2026-11-24T13:19:18.852Z  auth-api  info  request  9339e5dd-  method=POST path=/token ms=31.67

These are time (UTC), service, level, event and request id (`-` for none); then every other field.
What could be misread is written as JSON. A traceback follows on lines of its own, indented.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

_HEAD = {"time": 24, "service": 15, "level": 7, "event": 10, "request_id": 36}
_EXCEPTION = "exception"
_INDENT = "    "

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_MICROSECONDS = re.compile(r"(?<=\.\d{3})\d+")
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_CELL = r'"(?:[^"\\]|\\.)*"|[^\s"]\S*(?: \S+)*'
_LINE = re.compile(rf"({_CELL})  +({_CELL})  +({_CELL})  +({_CELL})  +({_CELL})(?:  +(.*))?")
_DECODER = json.JSONDecoder()

_LEVEL_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31"}
# Not red and yellow, which are the levels'.
_SERVICE_COLOURS = ("34", "35", "36", "94", "95", "96", "32", "92")


def shows_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether it is a terminal, and its user has not said no (https://no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def render(fields: Mapping[str, Any], *, colours: bool = False) -> str:
    """The fields as a line, without its end; with a traceback, as several."""
    cells = [_padded(name, fields.get(name), colours=colours) for name in _HEAD]
    rest = [
        f"{_dim(_name(name) + '=', colours=colours)}{_value(value)}"
        for name, value in fields.items()
        if name not in _HEAD and name != _EXCEPTION
    ]
    line = "  ".join([*cells, " ".join(rest)]).rstrip()
    return "\n".join([line, *(_INDENT + said for said in _traceback(fields.get(_EXCEPTION)))])


def render_text(fields: Mapping[str, Any], *, colours: bool = False) -> str:
    """A line that has no form of ours, whose `event` is all of its text, as a line."""
    cells = [_padded(name, fields.get(name), colours=colours) for name in ("time", "service")]
    return "  ".join([*cells, printable(str(fields.get("event") or ""))]).rstrip()


def parse(text: str) -> dict[str, Any] | None:
    """The fields of a line that `render` made without colours; None when it is no such line."""
    found = _LINE.fullmatch(text.rstrip())
    if not found or not _TIME.match(text):
        return None
    *head, rest = found.groups()
    fields: dict[str, Any] = {}
    try:
        for name, cell in zip(_HEAD, head, strict=True):
            if cell != "-":
                fields[name] = json.loads(cell) if cell.startswith('"') else cell
        fields |= _fields(rest or "")
    except (ValueError, RecursionError):
        return None
    return fields


def printable(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text.expandtabs(4))


def _padded(name: str, value: object, *, colours: bool) -> str:
    text = _cell(name, value)
    space = " " * max(_HEAD[name] - len(text), 0)
    return (_coloured(name, text) if colours else text) + space


def _coloured(name: str, text: str) -> str:
    code = {
        "level": _LEVEL_COLOURS.get(text, "0"),
        "service": _SERVICE_COLOURS[crc32(text.encode("utf-8", "replace")) % len(_SERVICE_COLOURS)],
        "event": "1",
    }.get(name, "2")
    return f"\x1b[{code}m{text}\x1b[0m"


def _dim(text: str, *, colours: bool) -> str:
    return f"\x1b[2m{text}\x1b[0m" if colours else text


def _cell(name: str, value: object) -> str:
    if value is None or value == "":
        return "-"
    text = str(value)
    if name == "time":
        text = _MICROSECONDS.sub("", text)
    is_plain = text.isprintable() and re.fullmatch(_CELL, text) and text[0] != '"' and text != "-"
    return text if is_plain else _json(text)


def _name(name: str) -> str:
    return name if _NAME.fullmatch(name) else _json(name)


def _value(value: object) -> str:
    if not isinstance(value, str):
        return _json(value)
    is_plain = value.isprintable() and value and " " not in value and value[0] not in '"[{'
    return value if is_plain and isinstance(_literal(value), str) else _json(value)


def _json(value: object) -> str:
    text = json.dumps(value, default=str, separators=(",", ":"), ensure_ascii=False)
    # What could steer a terminal, or is half a character, is escaped.
    return text if text.isprintable() else json.dumps(value, default=str, separators=(",", ":"))


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _fields(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    position = 0
    while position < len(text):
        name = _NAME.match(text, position)
        if not name or text[name.end() : name.end() + 1] != "=":
            raise ValueError(text)
        start = name.end() + 1
        if text[start : start + 1] in ('"', "[", "{"):
            fields[name[0]], end = _DECODER.raw_decode(text, start)
        else:
            end = (text + " ").index(" ", start)
            fields[name[0]] = _literal(text[start:end])
        position = end + 1
    return fields


def _traceback(exception: object) -> list[str]:
    """A traceback's lines: of a text, or of the list that the JSON format has in its place."""
    if isinstance(exception, str):
        return [printable(line) for line in exception.splitlines()]
    if not isinstance(exception, list):
        return []
    lines = []
    for raised in reversed([part for part in exception if isinstance(part, dict)]):
        frames = raised.get("frames")
        for frame in frames if isinstance(frames, list) else []:
            if isinstance(frame, dict):
                place = f"{frame.get('filename')}:{frame.get('lineno')}"
                lines.append(f"{place} in {frame.get('name')}")
        lines.append(f"{raised.get('exc_type')}: {raised.get('exc_value')}")
    return [printable(part) for line in lines for part in line.splitlines()]
