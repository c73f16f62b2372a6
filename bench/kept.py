"""Saved results, and the earlier one to compare with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pydantic import ValidationError

from bench import chart
from bench.figures import Run

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Result


def keep(run: Run, folder: Path) -> Path:
    """Writes `<time>-<mode>.json` and the chart beside it; returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{run.started_at.replace(':', '').replace('-', '')}-{run.mode}"
    path = folder / f"{stem}.json"
    path.write_text(run.model_dump_json(indent=1) + "\n")
    chart.write(run, folder / f"{stem}.svg")
    return path


def previous(folder: Path, mode: str) -> dict[str, Result]:
    """The newest result of each row in that mode, committed or not."""
    runs = [run for path in folder.glob("*.json") if (run := _read(path)) and run.mode == mode]
    runs.sort(key=lambda run: run.started_at)
    return {result.name: result for run in runs for result in run.results}


def _read(path: Path) -> Run | None:
    try:
        return Run.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        sys.stderr.write(f"bench: {path} is no result of this benchmark, and is passed over\n")
        return None
