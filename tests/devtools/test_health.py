"""Commands for a stack that does not run say so."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from devtools import health
from tests.support import ROOT, call


def test_without_a_reason_in_a_log_doctor_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk all logs are empty."""
    environ = {"PC_SOCKET_PATH": str(tmp_path / "pc.sock"), "PLATFORM_STATE": str(tmp_path)}
    assert health.wait(environ) == 1
    assert "`doctor`" in capsys.readouterr().err


def test_a_socket_of_a_killed_supervisor_is_no_stack(tmp_path: Path) -> None:
    """process-compose's own client would print the socket's error."""
    environ = {"PATH": os.environ["PATH"], "PLATFORM_CODE": str(ROOT), "PC_SOCKET_PATH": "s"}
    with socket.socket(socket.AF_UNIX) as left, contextlib.chdir(tmp_path):
        left.bind("s")
    done = call(["process-compose", "process", "list"], environ, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no stack of this checkout is running")
