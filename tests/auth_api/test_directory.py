"""The users file of the running service: changes apply, and a health check notices faults."""

import io
import os
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from services.auth_api.directory import UserDirectory
from services.auth_api.userfile import load
from services.auth_api.users import main
from tests.auth_api.login import api_of, claims, log_in


def test_a_changed_user_file_applies_at_once(file: Path) -> None:
    """A changed users file affects the next token, even for a remembered login."""
    api = api_of(file)
    assert claims(log_in(api, "alice"))["enabled"] is True
    assert main(["disable", "alice"], file, io.StringIO(), lambda: "") == 0
    assert claims(log_in(api, "alice"))["enabled"] is False
    assert main(["add", "dora"], file, io.StringIO(), lambda: "secret of dora") == 0
    assert claims(log_in(api, "dora", "secret of dora"))["sub"] == str(load(file)[-1].id)


def test_the_last_of_two_concurrent_changes_applies(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow reload of an older file never replaces a newer one."""
    directory = UserDirectory(file)
    others: list[threading.Thread] = []

    def slowly(path: Path) -> Any:
        found = load(path)
        if not others:
            file.write_text("[]")
            others.append(threading.Thread(target=directory.find, args=["alice"]))
            others[0].start()
            others[0].join(0.5)
        return found

    monkeypatch.setattr("services.auth_api.directory.load", slowly)
    os.utime(file)
    directory.find("alice")
    others[0].join()
    assert directory.find("alice") is None


@pytest.mark.parametrize("seen_by", ["login", "health check"])
def test_a_users_file_that_was_unreadable_once_is_loaded_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, seen_by: str
) -> None:
    """At the next login if its permissions change, else (too many open files) at a health check.

    Until then the previous users are in force, and the health check fails.
    """
    api = api_of(file)
    main(["disable", "alice"], file, io.StringIO(), lambda: "")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", Mock(side_effect=PermissionError(13, "denied")))
        assert claims(log_in(api, "alice"))["enabled"] is True
        health = api.simulate_get("/health")
        assert (health.status_code, health.json["checks"]["users"]) == (503, "fail")
    if seen_by == "login":
        file.chmod(0o640)
    else:
        monkeypatch.setattr("services.auth_api.directory._RETRY_SECONDS", 0)
        assert api.simulate_get("/health").status_code == 200
    assert claims(log_in(api, "alice"))["enabled"] is False


def test_a_health_check_does_not_load_an_unchanged_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may request it; each load of a long file would hold up the logins."""
    api, loads = api_of(file), Mock(side_effect=load)
    monkeypatch.setattr("services.auth_api.directory.load", loads)
    for count in (0, 1):
        for _check in range(3):
            assert api.simulate_get("/health").status_code == 200
        assert loads.call_count == count
        os.utime(file)
    file.write_text("[")
    for _check in range(3):
        assert api.simulate_get("/health").status_code == 503
    assert loads.call_count == 2


def test_a_mounted_file_that_was_replaced_is_noticed(file: Path) -> None:
    """A mount of a single file keeps the old one, as an open file does: the health check fails."""
    with file.open() as mounted:
        api = api_of(Path(f"/dev/fd/{mounted.fileno()}"))
        assert api.simulate_get("/health").status_code == 200
        main(["disable", "alice"], file, io.StringIO(), lambda: "")
        assert api.simulate_get("/health").json["checks"]["users"] == "fail"
