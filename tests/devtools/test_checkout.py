"""Where settings come from, and what is told of `.env` before the stack starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devtools.address import BLOCK
from devtools.checkout import current, name_warnings, rows
from devtools.preflight import faults, warnings
from tests.support import free_ports

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout, and is the working folder."""
    (tmp_path / "process-compose.yaml").touch()
    (tmp_path / "services").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def origins(checkout: Path, dotenv: str, **environ: str) -> dict[str, tuple[str, str]]:
    (checkout / ".env").write_text(dotenv)
    return {row.variable: (row.value, row.origin) for row in rows(current(environ), 9000)}


def test_each_setting_has_its_origin(checkout: Path) -> None:
    """The shell beats `.env`, `.env` what the stack sets, and that the default."""
    told = origins(
        checkout,
        "WORKERS=3\nQUEUE_LIMIT=7\nREDIS_URL=redis://:hunter2@elsewhere/0\n",
        WORKERS="4",
    )
    assert told["WORKERS"] == ("4", "environment")
    assert told["QUEUE_LIMIT"] == ("7", ".env")
    assert told["REDIS_URL"] == ("redis://<secret>@elsewhere/0", ".env")
    assert told["PSP_URL"] == ("http://127.0.0.1:9004", "stack")
    assert told["JWT_SECRET"] == ("<secret>", "stack (JWT_SECRET_FILE)")
    assert told["CONCURRENCY"] == ("12", "default")


def test_an_empty_variable_of_the_shell_hides_dotenv(checkout: Path) -> None:
    """As process-compose has it, and it counts as unset then."""
    assert origins(checkout, "QUEUE_LIMIT=7\n", QUEUE_LIMIT="")["QUEUE_LIMIT"] == (
        "100000",
        "default",
    )


def test_the_checkout_is_found_from_a_folder_in_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And another checkout's shell does not lead to that one's state."""
    monkeypatch.chdir(checkout / "services")
    environ = {"PLATFORM_CHECKOUT": "/other", "PLATFORM_STATE": "/other/.state"}
    found = current(environ)
    assert (checkout, checkout / ".state") == (found.folder, found.state)
    assert str(current(environ | {"PLATFORM_STATE": "/chosen"}).state) == "/chosen"


def test_preflight_refuses_what_dotenv_would_not_do(checkout: Path) -> None:
    """A line that cannot be read, a slip of the pen and a variable that comes too late."""
    (checkout / ".env").write_text("PSP_TIMEOUT_SECOND=3\r\nWORKERS 2\r\nPLATFORM_STATE=/x\r\n")
    found = faults({"PLATFORM_CHECKOUT": str(checkout), "PLATFORM_PORT": str(free_ports(BLOCK))})
    told = [fault for fault in found if fault.startswith(".env")]
    assert ".env, line 2: is not NAME=value (comments begin with #)" in told
    slip = ".env: PSP_TIMEOUT_SECOND is not a setting; did you mean PSP_TIMEOUT_SECONDS?"
    assert slip in told
    assert any("PLATFORM_STATE is needed before .env is read" in fault for fault in told)


def test_preflight_starts_with_a_slip_in_the_shell_and_says_so(checkout: Path) -> None:
    """The shell's environment is not ours alone: there it is a warning."""
    environ = {"PLATFORM_CHECKOUT": str(checkout), "PSP_TIMEOUT_SECOND": "3"}
    told = "in the environment: PSP_TIMEOUT_SECOND is not a setting; did you mean"
    assert [f"{told} PSP_TIMEOUT_SECONDS?"] == warnings(environ)
    assert not any("PSP_TIMEOUT" in fault for fault in faults(environ))


def test_what_is_of_no_effect_in_dotenv_is_told(checkout: Path) -> None:
    """HTTP_PORT is the stack's; a stranger is named."""
    (checkout / ".env").write_text("HTTP_PORT=1\nFAVOURITE=2\n")
    told = name_warnings(current({}))
    assert len(told) == 2
    assert told[0].startswith(".env: HTTP_PORT has no effect")
    assert told[1].startswith(".env: FAVOURITE is not a setting")
