"""The origin of each setting, and the faults of `.env`."""

import shutil
from pathlib import Path

import pytest

from devtools import environment, state
from devtools.address import CLUSTER_BLOCK
from devtools.checkout import current
from devtools.doctor.__main__ import settings
from devtools.preflight import faults
from devtools.settings import dotenv_faults, warnings
from services.auth_api.settings import SHIPPED_USERS
from tests.support import free_ports


def origins(checkout: Path, dotenv: str, **environ: str) -> dict[str, tuple[str, str]]:
    (checkout / ".env").write_text(dotenv)
    items = settings(current(environ), 9000)
    return {item.name: (item.value, item.note.partition(" [")[0]) for item in items}


def test_the_stack_reads_the_users_file_of_its_checkout(
    checkout: Path, environ: dict[str, str]
) -> None:
    """`services.auth_api.users` changes that; the code may run from the store, with its own."""
    other = {"PLATFORM_CHECKOUT": "/other"}
    assert origins(checkout, "", **other)["USERS_FILE"] == (str(SHIPPED_USERS), "default")
    file = checkout / "services" / "auth_api" / "users.json"
    file.parent.mkdir()
    file.write_text("[]")
    assert origins(checkout, "", **other)["USERS_FILE"] == (str(file), "stack")
    assert origins(checkout, "USERS_FILE=/mine")["USERS_FILE"] == ("/mine", ".env")
    assert faults(environ | {"PLATFORM_CHECKOUT": str(checkout)}) == []
    assert f"export USERS_FILE={file}\n" in (checkout / ".state" / "environment").read_text()


def test_another_shell_has_the_cluster_of_the_last_start(
    checkout: Path, environ: dict[str, str]
) -> None:
    """`platform up --cluster` sets it for the stack's own Redis, so REDIS_URL overrides it."""
    cluster = {"REDIS_CLUSTER": "1", "PARTITIONS": "16", "REDIS_REPLICAS_MIN": "1"}
    cluster["PLATFORM_PORT"] = str(free_ports(CLUSTER_BLOCK))
    assert faults(environ | cluster) == []
    found = origins(checkout, "")
    assert found["PARTITIONS"] == ("16", "the last start")
    assert found["REDIS_CLUSTER"] == ("1", "the last start")
    for text in ("REDIS_CLUSTER=0\n", "REDIS_CLUSTER=yes\n"):
        assert origins(checkout, text)["REDIS_CLUSTER"] == ("1", "the last start")
    other = origins(checkout, "", REDIS_URL="redis://elsewhere/0")
    assert other["PARTITIONS"] == ("1", "default")


def test_the_checkout_is_found_from_a_folder_in_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another checkout's shell does not change the state folder, nor what commands read."""
    (checkout / ".env").write_text("REDIS_URL=redis://a/0\nLOG_LEVEL=debug\n")
    monkeypatch.chdir(checkout / "services")
    environ = {"PLATFORM_CHECKOUT": "/other", "PLATFORM_STATE": "/other/.state"}
    found = current(environ)
    assert (found.folder, found.state) == (checkout, checkout / ".state")
    assert str(current(environ | {"PLATFORM_STATE": "/chosen"}).state) == "/chosen"
    # For merchant, logs and deadletters: the shell overrides `.env`.
    own = {"LOG_LEVEL": "info", "PLATFORM_STATE": str(checkout / ".state")}
    own["PLATFORM_CHECKOUT"] = str(checkout)
    assert current(own).merged == {"REDIS_URL": "redis://a/0", **own}
    (checkout / "process-compose.yaml").unlink()
    monkeypatch.chdir(checkout)
    assert "REDIS_URL" not in current(own).merged, "of another project"


def test_variables_without_effect_are_reported(checkout: Path) -> None:
    """Those that the stack sets, and those needed before `.env` is read; not a program's own."""
    (checkout / ".env").write_text("HTTP_PORT=1\nFAVOURITE=2\nPLATFORM_STATE=/x\n")
    [fixed] = warnings(current({}))
    assert fixed.startswith(".env: HTTP_PORT has no effect")
    [fault] = dotenv_faults(current({}))
    assert fault.startswith(".env: PLATFORM_STATE is needed before .env is read")


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
    endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
    environ = {"CONSOLE": console, endpoint: own}
    found = environment.environment("core-api", 9000, tmp_path, environ)
    assert found.get(endpoint) == seen


def test_the_sandbox_is_an_account_of_its_state_folder(tmp_path: Path) -> None:
    """It does not know what another folder's has charged, or what it charged before a reset."""

    def account(folder: Path, **environ: str) -> str:
        state.prepare(folder)
        return environment.environment("psp-connector", 9000, folder, environ)["PSP_ACCOUNT"]

    first, second = tmp_path / "first", tmp_path / "second"
    before = account(first)
    assert account(first) == before
    assert account(first, PSP_URL="HTTP://localhost:9004/") == before
    shutil.copytree(first, second)
    assert account(second) != before
    moved = first.rename(tmp_path / "moved")
    assert account(moved) == before
    state.forget(moved)
    assert account(moved) != before
