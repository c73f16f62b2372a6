"""The variables that preflight writes for the processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools import environment

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("console", "own", "seen"),
    [
        ("off", "", None),
        ("off", "http://o", "http://o"),
        ("", "", "http://127.0.0.1:9006"),
        ("on", "http://o", "http://o"),
    ],
)
def test_traces_go_to_the_console_unless_the_user_says_where(
    tmp_path: Path, console: str, own: str, seen: str | None
) -> None:
    """The user's endpoint has priority; without a console there is no default."""
    environ = {"CONSOLE": console, ENDPOINT: own}
    found = environment.environment("core-api", 9000, tmp_path, environ)
    assert found.get(ENDPOINT) == seen
