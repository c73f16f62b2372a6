"""The lock of the users file's folder."""

import fcntl
import os
from pathlib import Path

import pytest

from services.auth_api import userfile
from services.auth_api.userfile import UsersError, locked


def test_a_folder_that_stays_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user who may read the folder can lock it; a change is refused after a while."""
    monkeypatch.setattr(userfile, "LOCK_SECONDS_MAX", 0.1)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(UsersError, match="another process has locked it"), locked(tmp_path / "x"):
        pass
    os.close(other)
    with locked(tmp_path / "x"):
        pass
