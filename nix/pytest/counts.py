# ruff: noqa: INP001 - found by its folder on PYTHONPATH, as plugins are
"""A pytest plugin: writes `N passed, N failed[, N skipped]` to the file named by COUNTS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Count outcomes; an error outside a test, and a run without any test, is a failure too."""
    outcomes = {kind: len(found) for kind, found in terminalreporter.stats.items()}
    passed = outcomes.get("passed", 0) + outcomes.get("xpassed", 0)
    failed = outcomes.get("failed", 0) + outcomes.get("error", 0)
    skipped = outcomes.get("skipped", 0) + outcomes.get("xfailed", 0)
    if exitstatus != 0:
        failed = max(failed, 1)
    line = f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")
    Path(os.environ["COUNTS"]).write_text(f"{line}\n", encoding="ascii")
