"""The users file and the lock of its folder."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from services.auth_api import userfile
from services.auth_api.userfile import UsersError, load, locked
from tests.support import ROOT


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


@pytest.mark.parametrize(
    "password_hash",
    ["$argon2id$é", "$argon2id$", *(
        f"$argon2id$v=19${parameters}$c2FsdHNhbHQ$aGFzaGhhc2g"
        for parameters in (
            "m=65536,t=4294967295,p=1", "m=4294967295,t=2,p=1", "m=19456,t=2,p=99",
            "m=19456,t=٢,p=1", "m=0,t=2,p=1", "m=19456,t=0,p=1", "m=19456,t=2,p=0",
        )
    )],
)  # fmt: skip
def test_a_hash_that_cannot_be_verified_is_refused(tmp_path: Path, password_hash: str) -> None:
    """Or that would take so long that no other merchant can log in."""
    user = {"id": 1, "username": "becky", "password_hash": password_hash}
    path = tmp_path / "users.json"
    path.write_text(json.dumps([user]))
    with pytest.raises(UsersError, match=r"users\.json: 0\.password_hash"):
        load(path)


def test_a_fifo_is_refused(tmp_path: Path) -> None:
    """Reading it would wait for ever, and all logins with it."""
    os.mkfifo(tmp_path / "users.json")
    with pytest.raises(UsersError, match="not a file"):
        load(tmp_path / "users.json")


def test_a_file_that_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    """Like one that cannot be read: the users before it stay, and the health check fails."""
    with pytest.raises(UsersError, match="File name too long"):
        load(tmp_path / ("x" * 300))


def test_a_field_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Else a merchant disabled by hand, or by a merge, may stay enabled: the last value counts."""
    path = tmp_path / "users.json"
    disabled = json.loads((ROOT / "services/auth_api/users.json").read_text())
    path.write_text(json.dumps(disabled).replace('"enabled": false', '"enabled": false, "id": 99'))
    with pytest.raises(UsersError, match="a user has the same field twice"):
        load(path)


@pytest.mark.parametrize(
    "text", ["[marker-1", '[{"id": 1, "username": "a", "password_hash": "marker-1"}]']
)
def test_no_error_has_a_value_of_the_file(tmp_path: Path, text: str) -> None:
    """It may be a password. Web frameworks log the error behind an error, too."""
    path = tmp_path / "users.json"
    path.write_text(text)
    with pytest.raises(UsersError) as caught:
        load(path)
    assert "marker-1" not in f"{caught.value}{caught.value.__context__}"
