"""The variables that preflight writes for the processes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from devtools import environment

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("console", "own", "seen"),
    [
        ("off", "", ""),
        ("off", "http://o", "http://o"),
        ("", "", "http://127.0.0.1:9006"),
        ("on", "http://o", "http://o"),
    ],
)
def test_traces_go_to_the_console_unless_the_user_says_where(
    tmp_path: Path, console: str, own: str, seen: str
) -> None:
    """The user's endpoint wins; without a console there is none by default."""
    given = {"CONSOLE": console, ENDPOINT: own}
    (tmp_path / "environment").write_text(environment.script(9000, tmp_path, given))
    done = subprocess.run(
        ["sh", "-euc", f'. "$0/environment" && printf %s "${{{ENDPOINT}-}}"', str(tmp_path)],
        env=given, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout == seen
