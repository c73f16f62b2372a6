"""The variables that preflight writes for the processes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from devtools import environment

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
CONSOLE = "http://127.0.0.1:9006"


@pytest.mark.parametrize(
    ("offset", "own", "seen"),
    [
        (None, "", ""),
        (None, "http://o", "http://o"),
        (6, "", "http://127.0.0.1:9006"),
        (6, "http://o", "http://o"),
    ],
)
def test_traces_go_to_the_console_unless_the_user_says_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offset: int | None, own: str, seen: str
) -> None:
    """The user's endpoint wins; without a console there is none by default."""
    monkeypatch.setattr(environment, "CONSOLE_PORT_OFFSET", offset)
    (tmp_path / "environment").write_text(environment.script(9000, tmp_path))
    done = subprocess.run(
        ["sh", "-euc", f'. "$0/environment" && printf %s "${{{ENDPOINT}-}}"', str(tmp_path)],
        env={ENDPOINT: own} if own else {}, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout == seen
