"""The doctor's findings, as columns or as JSON."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from devtools.terminal import Output, columns

# Fine; information; a risk; must be fixed.
Status = Literal["ok", "note", "warning", "fault"]

_MARKS = {"ok": "", "note": "", "warning": "!", "fault": "X"}
_CELL_CHARACTERS_MAX = 44  # longer cells shift only their line


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    section: str = field(default="", kw_only=True)
    """Set by the doctor."""
    name: str
    value: str
    status: Status = "ok"
    note: str = ""
    remedy: str = ""


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


def print_text(findings: Sequence[Finding], output: Output) -> None:
    """Prints sections with aligned columns, then the totals."""
    for section, group in itertools.groupby(findings, lambda finding: finding.section):
        output.say(section)
        listed = list(group)
        rows = [(f"{_MARKS[f.status]:2}{f.name}", f.value, f.note) for f in listed]
        lines = columns(rows, characters_max=_CELL_CHARACTERS_MAX)
        for finding, line in zip(listed, lines, strict=True):
            output.say(line, _MARKS[finding.status])
            if finding.remedy:
                output.say(f"    -> {finding.remedy}")
        output.say("")
    faults, warnings = count(findings, "fault"), count(findings, "warning")
    totals = f"faults (X): {faults}, warnings (!): {warnings}"
    output.say(totals if faults or warnings else "no problems found")
