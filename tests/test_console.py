"""The log format for people: aligned, safe to show, and a program can read it again."""

from __future__ import annotations

import io
import json
import logging
import re
from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from services import console, logs
from services.loglines import parse
from services.settings import Settings

AT = "2026-11-24T13:19:18.852753Z"
REQUEST = "9339e5dd-5789-48dc-a602-082401da5db4"
HEAD = {"time": AT, "service": "auth-api", "level": "info", "event": "request"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def test_a_line_in_columns() -> None:
    """Time to the millisecond, service, level, event, request id, and then the rest."""
    fields = HEAD | {"request_id": REQUEST, "method": "POST", "reason": "HTTP 500", "ms": 31.67}
    assert (
        "2026-11-24T13:19:18.852Z  auth-api         info     request     "
        f'{REQUEST}  method=POST reason="HTTP 500" ms=31.67'
    ) == console.render(fields)


def test_columns_stand_below_each_other() -> None:
    """With or without a request id, whatever the service's name is."""
    one = console.render(HEAD | {"request_id": REQUEST, "x": 1})
    other = console.render(HEAD | {"service": "psp-connector", "event": "working", "x": 1})
    assert one.index("x=1") == other.index("x=1")


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), VALUES, max_size=4))
def test_it_can_be_read_again(fields: dict[str, object]) -> None:
    """Every field has the same name and value afterwards."""
    fields = HEAD | {"time": AT[:23] + "Z"} | {f"x_{name}": fields[name] for name in fields}
    line = console.render(fields)
    assert "\n" not in line
    assert fields == console.parse(line)


@given(st.text(), st.text(), st.text())
def test_no_text_can_be_mistaken_for_another_column(
    event: str, request_id: str, service: str
) -> None:
    """Spaces, quotes, line ends, the sign for `none`."""
    fields = HEAD | {"event": event, "request_id": request_id, "service": service, "x": 1}
    read = console.parse(console.render(fields))
    assert read is not None
    assert {name: value for name, value in fields.items() if value and name != "time"} == {
        name: value for name, value in read.items() if name != "time"
    }


@given(st.text(), VALUES)
def test_nothing_steers_the_terminal(text: str, value: object) -> None:
    """Whatever was logged, a line has printable characters only."""
    fields = HEAD | {"event": text, "exception": text, text: value}
    for line in console.render(fields).split("\n"):
        assert line.isprintable()


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    """What is no line of this format is said to be none, or has fields."""
    assert console.parse(text) is None or re.match(r"\d{4}-\d\d-\d\dT", text)


def test_colours_change_nothing_else() -> None:
    """Without them the line is the same."""
    fields = HEAD | {"request_id": REQUEST, "method": "POST", "level": "error"}
    coloured = console.render(fields, colours=True)
    assert "\x1b[31merror\x1b[0m" in coloured
    assert console.render(fields) == re.sub(r"\x1b\[\d+m", "", coloured)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals() -> None:
    """And for those who want them (https://no-color.org)."""
    assert console.shows_colours(Terminal(), {"TERM": "xterm"})
    assert not console.shows_colours(io.StringIO(), {})
    assert not console.shows_colours(Terminal(), {"NO_COLOR": "1"})
    assert not console.shows_colours(Terminal(), {"TERM": "dumb"})


def fail_and_say_so(password: str) -> None:
    try:
        int("x" * len(password))
    except ValueError:
        structlog.get_logger().exception("failed", request_id=REQUEST)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_exception_is_shown_without_its_variables(
    log_format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """LOG_FORMAT decides on the form of the same line; a password is in neither."""
    before = structlog.get_config()
    handlers = logging.getLogger().handlers
    try:
        logs.configure("auth-api", Settings.read({"LOG_FORMAT": log_format}))
        fail_and_say_so("a-secret")
    finally:
        structlog.configure(**before)
        logging.basicConfig(handlers=handlers, force=True)
    said = capfd.readouterr().out
    assert "a-secret" not in said
    line = parse(said.splitlines()[0].encode(), "auth-api")
    assert line is not None
    assert ("failed", REQUEST, "error") == (
        line.fields["event"], line.fields["request_id"], line.level
    )  # fmt: skip
    assert abs((line.at - datetime.now(UTC)).total_seconds()) < 60
    shown = said if log_format == "console" else console.render(line.columns())
    assert re.search(r"\n {4}.*test_console.py", shown)
    assert "\n    ValueError: " in shown
    assert (log_format == "json") == said.startswith("{")
    if log_format == "json":
        assert "exception" in json.loads(said)
