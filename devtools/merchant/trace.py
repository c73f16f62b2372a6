"""A transaction's timing: its record and the logs of all processes in one table.

Each row is a span: start, duration, source. Spans overlap: the router waits for the Core API, the
connector for the PSP, and the connector may start before the Core API has responded. A hop's time
excludes the hops below it, so the hops need not add up to the total. `finish` is the connector's
part of an attempt without the PSP: claiming it and writing its result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from devtools import loglines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from devtools.loglines import Line
    from devtools.merchant.models import Event, Transaction
    from devtools.merchant.report import Screen

# In the order in which a transaction passes them. The last three are seen only when an attempt
# failed for now, when no log has the time of the PSP, and when a connector crashed.
HOPS = ("router", "Core API", "queue", "PSP", "finish", "backoff", "attempt", "lost")

# Two clocks of one machine, one of them cut to whole milliseconds.
_SLACK = timedelta(milliseconds=5)
# The connector's line follows the record's event as soon as Redis has answered, or its time is up.
_SAID_WITHIN = timedelta(seconds=5)
_SPAN_MS_MAX = 1e9
_SHOWN_CHARACTERS_MAX = 200
_SHOWN_IN_FIELDS = frozenset({"service", "request_id", "transaction_id", "event"})


@dataclass(frozen=True)
class Row:
    """A span, or, without `ms`, a moment; `hops` says how much of it was spent where."""

    at: datetime
    process: str
    what: str
    ms: float | None = None
    hops: Mapping[str, float] = field(default_factory=dict)
    attempt: int | None = None


@dataclass
class Trace:
    """A transaction's rows, oldest first, and notes on the logs."""

    rows: list[Row] = field(default_factory=list)
    lines: Sequence[Line] = ()
    folder: Path | None = None

    @property
    def request_ids(self) -> list[str]:
        """The request ids in the lines, in order."""
        ids = (line.fields.get("request_id") for line in self.lines)
        return list(dict.fromkeys(id_ for id_ in ids if id_))

    @property
    def began(self) -> datetime:
        """The start of the first row."""
        return self.rows[0].at

    @property
    def spent_ms(self) -> dict[str, float]:
        """Milliseconds by hop."""
        spent: dict[str, float] = {}
        for hop in HOPS:
            if parts := [row.hops[hop] for row in self.rows if hop in row.hops]:
                spent[hop] = sum(parts)
        return spent

    @property
    def all_ms(self) -> float:
        """Milliseconds from the first row's start to the end of the last hop."""
        ends = [_ms(self.began, row.at) + (row.ms or 0.0) for row in self.rows if row.hops]
        return max(ends, default=0.0)


def trace(transaction: Transaction, folder: Path) -> Trace:
    """The trace of a transaction; without logs, from its record alone."""
    lines = loglines.about(folder, transaction.id)
    attempts = _Attempts(lines)
    waits = attempts.rows(transaction.timeline)
    rows = [_row(line, lines) for line in lines if line not in attempts.used]
    # A request before what it brought about, where they began at the same time.
    return Trace(sorted(rows + waits, key=lambda row: row.at), lines, folder)


class _Attempts:
    """The timeline as rows: waiting, the PSP, the end, for each attempt."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = [line for line in lines if line.fields.get("event") == "attempt"]
        self._asked = [
            _began(line, ms)
            for line in lines
            if _process(line) == "core-api" and (ms := _request_ms(line)) is not None
        ]
        self.used: list[Line] = []
        self._rows: list[Row] = []
        self._waiting: datetime | None = None
        self._begun: tuple[datetime, int | None] | None = None

    def rows(self, timeline: Sequence[Event]) -> list[Row]:
        for event in timeline:
            if event.event == "processing":
                self._begin(event)
            elif event.event == "queued":
                self._waiting = self._not_before_asked(event.at)
            elif self._begun:
                self._end(event, *self._begun)
            else:
                self._rows.append(Row(event.at, "record", _words(event.event, event.details)))
        if self._begun:
            at, attempt = self._begun
            self._rows.append(Row(at, "psp-connector", f"attempt {attempt}: not over"))
        elif self._waiting:
            self._rows.append(Row(self._waiting, "queue", "waits for an attempt"))
        return self._rows

    def _not_before_asked(self, at: datetime) -> datetime:
        """A time of the record has whole milliseconds; a request may begin later in the same."""
        same = [asked for asked in self._asked if at <= asked < at + timedelta(milliseconds=1)]
        return max([at, *same])

    def _begin(self, event: Event) -> None:
        number = event.details.get("attempt")
        attempt = number if isinstance(number, int) else None
        if self._begun:
            at, before = self._begun
            what = f"attempt {before}: no outcome, the connector stopped; taken over"
            span = _ms(at, event.at)
            self._rows.append(Row(at, "psp-connector", what, span, {"lost": span}, before))
        elif self._waiting:
            what = f"waits for attempt {attempt}"
            span = _ms(self._waiting, event.at)
            self._rows.append(Row(self._waiting, "queue", what, span, {"queue": span}, attempt))
        self._waiting = None
        self._begun = event.at, attempt

    def _end(self, event: Event, begun: datetime, attempt: int | None) -> None:
        self._begun = None
        what = f"attempt {attempt}: {_words(event.event, _without_times(event))}"
        line = self._line(event, attempt)
        psp_ms = _number(line.fields, "psp_ms") if line else None
        if line is None or psp_ms is None:
            span = _ms(begun, event.at)
            hops = {"attempt": span}
        else:
            self.used.append(line)
            span = _ms(begun, line.at)
            hops = {"PSP": psp_ms, "finish": max(span - psp_ms, 0.0)}
            what += "  " + "  ".join(f"{hop} {ms:.1f} ms" for hop, ms in hops.items())
        self._rows.append(Row(begun, "psp-connector", what, span, hops, attempt))
        if event.event == "retry":
            self._back_off(event, attempt)

    def _back_off(self, event: Event, attempt: int | None) -> None:
        due = _time(event.details.get("next_attempt_at")) or event.at
        span = _ms(event.at, due)
        what = "waits before the next attempt"
        self._rows.append(Row(event.at, "queue", what, span, {"backoff": span}, attempt))
        self._waiting = due

    def _line(self, event: Event, attempt: int | None) -> Line | None:
        """The connector's log line on the attempt that ended with this event."""
        for line in self._lines:
            # After a replay from the dead letters the numbers restart: match by time. What
            # had no effect was another connector's, too late.
            is_near = abs(line.at - event.at) <= _SAID_WITHIN
            is_same = is_near and line.fields.get("attempt") == str(attempt)
            if is_same and line.fields.get("effective") != "false" and line not in self.used:
                return line
        return None


def _row(line: Line, others: Sequence[Line]) -> Row:
    fields = line.fields
    ms = _request_ms(line)
    if ms is None:
        said = {name: fields[name] for name in fields if name not in _SHOWN_IN_FIELDS}
        return Row(line.at, _process(line), _words(fields["event"], said))
    what = f"{fields.get('method')} {fields.get('path')} {fields.get('status')}"
    if "fault" in fields:
        what += f"  fault {fields['fault']}"
    hops = {}
    process = _process(line)
    if process == "core-api":
        hops = {"Core API": ms}
    elif process == "router" and (inner_ms := _inside(line, ms, others)) is not None:
        hops = {"router": max(ms - inner_ms, 0.0)}
    return Row(_began(line, ms), process, what, ms, hops)


def _process(line: Line) -> str:
    return line.fields.get("service", "")


def _inside(line: Line, ms: float, others: Sequence[Line]) -> float | None:
    """The Core API's part of the router's request; None if it was for another service."""
    began = _began(line, ms) - _SLACK
    for other in others:
        if _process(other) == "core-api" and began <= other.at <= line.at + _SLACK:
            inner_ms = _request_ms(other)
            if inner_ms is not None and _same_request(line, other):
                return inner_ms
    return None


def _same_request(line: Line, other: Line) -> bool:
    return bool(line.fields.get("request_id") == other.fields.get("request_id"))


def _request_ms(line: Line) -> float | None:
    """A request's duration; None if the line is not about a request."""
    is_request = line.fields.get("event") in {"request", "handled request"}
    return _number(line.fields, "ms") if is_request else None


def _began(line: Line, ms: float) -> datetime:
    return line.at - timedelta(milliseconds=ms)


def _number(fields: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(fields.get(name, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= _SPAN_MS_MAX else None


def _ms(start: datetime, end: datetime) -> float:
    return max((end - start).total_seconds() * 1000, 0.0)


def _time(value: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)


def _without_times(event: Event) -> dict[str, object]:
    return {name: value for name, value in event.details.items() if name != "next_attempt_at"}


def _words(name: str, details: dict[str, Any]) -> str:
    told = (f"{key} {value}" for key, value in details.items() if value not in ("", None))
    return "  ".join([name, *told])


def show(traced: Trace, transaction: Transaction, screen: Screen) -> None:
    """Prints the table, the time per hop, the result, and notes on the logs."""
    screen.say(f"transaction  {transaction.id}")
    for request_id in traced.request_ids:
        screen.say(f"request      {request_id}")
    width = max(map(len, (row.process for row in traced.rows)), default=0)
    for row in traced.rows:
        offset = f"+{_ms(traced.began, row.at):.1f}"
        took = "" if row.ms is None else f"{row.ms:.1f} ms"
        screen.say(f"{offset:>10}  {row.process:<{width}}  {took:>11}  {_short(row.what)}")
    spent = [f"{hop} {ms:.1f} ms" for hop, ms in traced.spent_ms.items()]
    screen.say("  ".join(["spent", *spent, f"all {traced.all_ms:.1f} ms"]))
    screen.outcome(transaction, "" if transaction.is_final else "still open")
    for note in _notes(traced):
        screen.say(f"note: {note}")


def as_json(traced: Trace) -> dict[str, Any]:
    """The trace as JSON, with the unchanged log lines."""
    rows = [
        {
            "offset_ms": round(_ms(traced.began, row.at), 3),
            "process": row.process,
            "what": row.what,
            "ms": None if row.ms is None else round(row.ms, 3),
            "hops": {hop: round(ms, 3) for hop, ms in row.hops.items()},
            "attempt": row.attempt,
        }
        for row in traced.rows
    ]
    return {
        "request_ids": traced.request_ids,
        "rows": rows,
        "spent_ms": {hop: round(ms, 3) for hop, ms in traced.spent_ms.items()},
        "all_ms": round(traced.all_ms, 3),
        "notes": _notes(traced),
        "lines": [{"process": _process(line), "line": line.fields} for line in traced.lines],
    }


def _notes(traced: Trace) -> list[str]:
    if traced.lines:
        return []
    where = "say where the logs are with --logs or PLATFORM_STATE"
    return [f"no log in {traced.folder} mentions it, so this is from the record alone; {where}"]


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}…"
