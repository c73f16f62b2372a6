from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.core_api.settings import CoreSettings
from services.settings import EXIT_BAD_SETTINGS, SettingsError, read_or_exit

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {"HTTP_PORT": "8002", "REDIS_URL": "redis://127.0.0.1:8005/0", "JWT_SECRET": "s" * 32}


def faults(**changes: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        CoreSettings.read(GOOD | changes)
    return error.value.faults


def test_reads_what_is_given_and_fills_in_the_rest() -> None:
    """Settings come from the mapping alone; defaults fill what it leaves out."""
    settings = CoreSettings.read(GOOD)
    assert (8002, "127.0.0.1", 2, 100_000) == (
        settings.http_port, settings.http_host, settings.workers, settings.queue_limit,
    )  # fmt: skip


def test_an_empty_variable_is_as_good_as_none() -> None:
    """`QUEUE_LIMIT=` means the default, as a compose file's `${QUEUE_LIMIT:-}` makes it."""
    assert 100_000 == CoreSettings.read(GOOD | {"QUEUE_LIMIT": ""}).queue_limit


def test_all_faults_come_in_one_message() -> None:
    """Whoever mends the settings sees everything that is wrong at once, with name and rule."""
    told = faults(HTTP_PORT="http", QUEUE_LIMIT="0", REDIS_URL="localhost:6379", LOG_LEVEL="loud")
    for variable in ("HTTP_PORT='http'", "QUEUE_LIMIT='0'", "REDIS_URL='localhost", "LOG_LEVEL="):
        assert 1 == sum(fault.startswith(variable) for fault in told), told
    assert 4 == len(told)


def test_a_missing_variable_is_named_with_its_meaning() -> None:
    """A variable without a default says what it is for."""
    assert ["HTTP_PORT is not set: the port to listen on"] == faults(HTTP_PORT="")


def test_a_short_secret_is_refused_without_showing_it() -> None:
    """Fewer than 32 bytes stop the service, with a sentence on how to make a good one."""
    told = faults(JWT_SECRET="hunter2")
    assert "secrets.token_hex" in told[0]
    assert "hunter2" not in told[0]


def test_no_secret_at_all_is_refused() -> None:
    """A service that signs tokens does not start without a secret."""
    assert "JWT_SECRET (or JWT_SECRET_FILE) is not set" in faults(JWT_SECRET="")[0]


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """JWT_SECRET_FILE names a file that holds the secret; white space around it is not part."""
    file = tmp_path / "secret"
    file.write_text("f" * 40 + "\n")
    settings = CoreSettings.read(GOOD | {"JWT_SECRET": "", "JWT_SECRET_FILE": str(file)})
    assert settings.jwt_secret is not None
    assert "f" * 40 == settings.jwt_secret.get_secret_value()


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The fault is the file, told once."""
    told = faults(JWT_SECRET="", JWT_SECRET_FILE=str(tmp_path / "none"))
    assert any("the file cannot be read: No such file" in fault for fault in told)


def test_secrets_do_not_show() -> None:
    """Settings may be printed: a secret shows as <secret>."""
    shown = repr(CoreSettings.read(GOOD))
    assert "s" * 32 not in shown
    assert "<secret>" in shown


def test_read_or_exit_leaves_with_ex_config(capsys: pytest.CaptureFixture[str]) -> None:
    """A service with bad settings ends with 78 before anything listens."""
    with pytest.raises(SystemExit) as left:
        read_or_exit(CoreSettings, {})
    assert EXIT_BAD_SETTINGS == left.value.code
    assert "nothing was started" in capsys.readouterr().err
