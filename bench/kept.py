"""Where results are kept, and which earlier one to compare with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pydantic import ValidationError

from bench import chart
from bench.figures import Run

if TYPE_CHECKING:
    from pathlib import Path


def keep(run: Run, folder: Path) -> Path:
    """Writes `<time>-<mode>.json` and the chart beside it; returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{run.started_at.replace(':', '').replace('-', '')}-{run.mode}"
    path = folder / f"{stem}.json"
    path.write_text(run.model_dump_json(indent=1) + "\n")
    chart.write(run, folder / f"{stem}.svg")
    return path


def previous(folder: Path, mode: str) -> Run | None:
    """The newest result of the same mode; one that is committed counts as the others do."""
    newest: Run | None = None
    for path in folder.glob("*.json"):
        try:
            run = Run.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            sys.stderr.write(f"bench: {path} is no result of this benchmark, and is passed over\n")
            continue
        if run.mode == mode and (newest is None or run.started_at > newest.started_at):
            newest = run
    return newest
