"""A line of a log, whoever wrote it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.loglines import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUTED = {
    "level": "warn", "ts": "2026-11-24T13:19:18.853526868Z", "logger": "http.log.access",
    "msg": "handled request", "request": {"method": "POST", "uri": "/auth/token"},
    "bytes_read": 42, "duration": 0.034581957, "status": 200, "request_id": "r-1",
}  # fmt: skip


@pytest.fixture
def _in_india(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def seen(text: str, process: str = "x") -> tuple[str, str, dict[str, Any]]:
    line = parse(text.encode(), process)
    assert line is not None
    return line.at.isoformat(timespec="milliseconds"), line.level, line.columns()


@pytest.mark.usefixtures("_in_india")
@pytest.mark.parametrize(
    ("text", "level", "event"),
    [
        ("15571:M 24 Nov 2026 18:49:17.055 * Server initialized", "info", "Server initialized"),
        ("15571:M 24 Nov 2026 18:49:17.055 # WARNING Memory", "warning", "WARNING Memory"),
        ("26-11-24 18:49:17.055 ERR no such port=1", "error", "no such port=1"),
        (
            "\x1b[90m26-11-24 18:49:17.055\x1b[0m \x1b[32mINF\x1b[0m \x1b[1mStarted\x1b[0m",
            "info",
            "Started",
        ),
        ("2026-11-24T13:19:17.055Z\tWARN\tadmin\tnot so good", "warning", "not so good"),
        ("2026-11-24T13:19:17.055Z\tINFO\tnot so good", "info", "not so good"),
        ('{"time": "2026-11-24T18:49:17.055+05:30", "level": "debug", "event": "e"}', "debug", "e"),
        ("2026-11-24T13:19:17.055Z  core-api  error  e  -  a=1", "error", "e"),
    ],
)
def test_every_process_has_time_level_and_event(text: str, level: str, event: str) -> None:
    """Redis' and process-compose's times are the machine's, where that is not UTC either."""
    at, its_level, columns = seen(text)
    assert ("2026-11-24T13:19:17.055+00:00", level) == (at, its_level)
    assert (event, "x") == (columns["event"], columns["service"])


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_request_at_the_router_is_told_as_the_services_tell_it(log_format: str) -> None:
    """Event, method, path, status and milliseconds, and nothing that nobody looks for."""
    text = json.dumps(ROUTED)
    if log_format == "console":
        rest = {
            name: ROUTED[name] for name in ROUTED if name not in ("level", "ts", "logger", "msg")
        }
        text = "\t".join([str(ROUTED["ts"]), "WARN", "http.log.access", "handled request"])
        text += "\t" + json.dumps(rest)
    _at, _level, columns = seen(text, "router")
    assert {
        "time": "2026-11-24T13:19:18.853526Z", "service": "router", "level": "warning",
        "event": "request", "method": "POST", "path": "/auth/token", "status": 200, "ms": 34.58,
        "request_id": "r-1",
    } == columns  # fmt: skip


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_no_text_breaks_it(text: str) -> None:
    line = parse(text.encode("utf-8", "surrogateescape"), "x")
    assert line is None or line.at.year >= 2000
