"""The logs of all processes, merged, newest first."""

import itertools
import re

from nicegui import ui

from devtools import loglines
from devtools.console.live import Live
from devtools.console.parts import choice, log_rows, log_table
from devtools.console.sources import Sources
from devtools.loglines import LEVELS, Line

_ROWS_MAX = 300
_SECONDS = 1.5
_NONE = "No line matches. Lines appear here as soon as a process logs them."


def page(sources: Sources) -> None:
    """The filters and the lines."""
    with ui.row():
        level = choice("At least", LEVELS, "info")
        names = {loglines.process_of(path) for path in sources.logs.glob("*.log")}
        process = choice("Process", sorted(names))
        request = _text("Request id")
        transaction = _text("Transaction id")
        follow = ui.switch("Follow", value=True)
    listing = log_table(_NONE)

    def read() -> list[Line]:
        """The latest matching lines, newest first."""
        latest = _about(sources, _id(request.value), _id(transaction.value))
        least, name = LEVELS.index(level.value or "debug"), process.value
        matching = (
            line
            for line in reversed(latest)
            if LEVELS.index(line.level) >= least and name in {None, line.fields.get("service")}
        )
        return list(itertools.islice(matching, _ROWS_MAX))

    def show(lines: list[Line]) -> None:
        listing.rows = log_rows(lines)

    lines = Live(read, show, seconds=_SECONDS)
    follow.on_value_change(lambda: setattr(lines.timer, "active", follow.value))
    for filter_ in (level, process, request, transaction):
        filter_.on_value_change(lines.refresh)


def _about(sources: Sources, request: str, transaction: str) -> list[Line]:
    """Lines in time order. An id is searched in all files, including rotated ones."""
    if transaction:
        return loglines.about(sources.logs, transaction)
    if request:
        return sorted(loglines.find(sources.logs, {request}), key=lambda line: line.at)
    return loglines.latest(sources.logs)


def _id(text: str | None) -> str:
    """An id, without surrounding spaces from a paste."""
    return re.sub(r"[^A-Za-z0-9._-]", "", text or "")[:64]


def _text(label: str) -> ui.input:
    field = ui.input(label).props("outlined dense clearable debounce=300")
    return field.classes("field field-id")
