"""`platform up -D` says why the stack did not become healthy."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.supervisor import Supervisor
from devtools.wait import wait


def test_without_a_reason_in_a_log_doctor_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk all logs are empty."""
    assert wait(Supervisor(str(tmp_path / "pc.sock")), tmp_path) == 1
    assert "`doctor`" in capsys.readouterr().err
