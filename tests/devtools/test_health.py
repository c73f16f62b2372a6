"""Commands for a stack that does not run say so."""

from pathlib import Path

import pytest

from devtools import health


def test_without_a_reason_in_a_log_doctor_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk all logs are empty."""
    environ = {"PC_SOCKET_PATH": str(tmp_path / "pc.sock"), "PLATFORM_STATE": str(tmp_path)}
    assert health.wait(environ) == 1
    assert "`doctor`" in capsys.readouterr().err
