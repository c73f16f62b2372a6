"""The logs of all processes, merged, newest first."""

import re
from dataclasses import dataclass

from nicegui import ui

from devtools import loglines
from devtools.console.live import Live
from devtools.console.parts import choice, log_rows, log_table
from devtools.console.sources import Sources
from devtools.loglines import LEVELS, Line

_ROWS_MAX = 300
_SECONDS = 1.5
_NONE = "No line matches. Lines appear here as soon as a process logs them."


@dataclass(frozen=True)
class Wanted:
    """Selects lines; an empty value matches all."""

    level: str = "debug"
    process: str = ""
    request: str = ""
    transaction: str = ""

    def __contains__(self, line: Line) -> bool:
        """Whether the level and the process match."""
        is_level = LEVELS.index(line.level) >= LEVELS.index(self.level)
        return is_level and self.process in {"", line.fields.get("service")}


def read(sources: Sources, wanted: Wanted) -> list[Line]:
    """The latest lines, newest first. An id is searched in all files, including rotated ones."""
    if wanted.transaction:
        found = loglines.about(sources.logs, wanted.transaction)
    elif wanted.request:
        found = sorted(loglines.find(sources.logs, {wanted.request}), key=lambda line: line.at)
    else:
        found = sources.tail.lines()
    return [line for line in reversed(found) if line in wanted][:_ROWS_MAX]


def page(sources: Sources) -> None:
    """The filters and the lines."""
    with ui.row():
        level = choice("At least", LEVELS, "info")
        names = {loglines.process_of(path) for path in sources.logs.glob("*.log")}
        process = choice("Process", sorted(names))
        request = _text("Request id")
        transaction = _text("Transaction id")
        follow = ui.switch("Follow", value=True)
    shown = log_table(_NONE)

    def wanted() -> Wanted:
        return Wanted(
            level.value or "debug", process.value or "", _id(request.value), _id(transaction.value)
        )

    def show(lines: list[Line]) -> None:
        shown.rows = log_rows(lines)

    lines = Live(lambda: read(sources, wanted()), show, seconds=_SECONDS)
    follow.on_value_change(lambda: setattr(lines.timer, "active", follow.value))
    for filter_ in (level, process, request, transaction):
        filter_.on_value_change(lines.refresh)


def _id(text: str | None) -> str:
    """An id, without surrounding spaces from a paste."""
    return re.sub(r"[^A-Za-z0-9._-]", "", text or "")[:64]


def _text(label: str) -> ui.input:
    made = ui.input(label).props("outlined dense clearable debounce=300")
    return made.classes("field field-id")
