"""The doctor's findings, as columns or as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# ok; of interest, but fine; may bite; has to be mended.
Status = Literal["ok", "note", "warning", "fault"]

_MARKS = {"ok": "  ", "note": "  ", "warning": "! ", "fault": "X "}
_COLUMN_CHARACTERS_MAX = 44  # longer cells shift only their line


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    section: str
    name: str
    value: str
    status: Status = "ok"
    note: str = ""
    cure: str = ""


def count(findings: Iterable[Finding], status: Status) -> int:
    """How many have this status."""
    return sum(finding.status == status for finding in findings)


def as_json(findings: Sequence[Finding]) -> str:
    """One JSON document; `version` changes with its schema."""
    document = {
        "version": 1,
        "faults": count(findings, "fault"),
        "warnings": count(findings, "warning"),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    return json.dumps(document, indent=2) + "\n"


def as_text(findings: Sequence[Finding]) -> str:
    """Sections with aligned columns, then the totals."""
    lines: list[str] = []
    for section in dict.fromkeys(finding.section for finding in findings):
        lines += ["", section, *_lines([one for one in findings if one.section == section])]
    return "\n".join([*lines[1:], "", _sum(findings)]) + "\n"


def _lines(findings: Sequence[Finding]) -> list[str]:
    names = max(len(finding.name) for finding in findings)
    values = [len(one.value) for one in findings if len(one.value) <= _COLUMN_CHARACTERS_MAX]
    widths = (names, max(values, default=0))
    lines = []
    for one in findings:
        cells = f"{one.name.ljust(widths[0])}  {one.value.ljust(widths[1])}  {one.note}"
        lines.append(f"{_MARKS[one.status]}{cells}".rstrip())
        if one.cure:
            lines.append(f"    -> {one.cure}")
    return lines


def _sum(findings: Sequence[Finding]) -> str:
    faults, warnings = count(findings, "fault"), count(findings, "warning")
    if not faults and not warnings:
        return "nothing is wrong"
    return f"{_plural(faults, 'fault')} (X), {_plural(warnings, 'warning')} (!)" + (
        "" if faults else ": nothing that keeps the stack from running"
    )


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
