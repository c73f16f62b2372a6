"""The doctor finds what is wrong, says what to do, and never hangs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from devtools import doctor, findings, machine, versions
from devtools.address import BLOCK, PORT_OFFSETS
from devtools.checkout import current
from devtools.findings import Finding
from devtools.live_checks import Running
from services.common import store
from tests.support import ROOT, free_ports, redis_server

if TYPE_CHECKING:
    from pathlib import Path

SECTIONS = ["programs", "ports", "health", "redis", "settings", "state", "machine"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout, and is the working folder."""
    (tmp_path / "process-compose.yaml").touch()
    (tmp_path / "services").mkdir()
    (tmp_path / "flake.lock").write_text((ROOT / "flake.lock").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def environ(checkout: Path) -> dict[str, str]:
    del checkout  # it has only to be there
    return {"PATH": os.environ["PATH"], "PLATFORM_PORT": str(free_ports(BLOCK))}


def found(items: list[Finding], section: str, name: str) -> Finding:
    """The one finding of that section and name."""
    [one] = [item for item in items if (item.section, item.name) == (section, name)]
    return one


def wrong(items: list[Finding]) -> list[Finding]:
    """All that is not in order."""
    return [item for item in items if item.status in {"fault", "warning"}]


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The doctor as a program."""
    return subprocess.run(
        [sys.executable, "-m", "devtools.doctor", *words],
        env=environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_stack_that_does_not_run_is_no_fault(environ: dict[str, str], checkout: Path) -> None:
    """Nothing is wrong in a fresh checkout, exit code 0, and the doctor leaves no trace in it."""
    before = sorted(checkout.rglob("*"))
    done = run(**environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("nothing is wrong\n")
    heads = [line for line in done.stdout.splitlines() if line and line[0] not in " !X"]
    assert [*SECTIONS, "nothing is wrong"] == heads
    assert before == sorted(checkout.rglob("*"))


def test_asking_for_a_version_writes_no_log(tmp_path: Path) -> None:
    """With /dev/null as its log process-compose makes no file beside it, which only root may."""
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    environ = {"PATH": os.environ["PATH"], "PROC_COMP_CONFIG": str(tmp_path)}
    command = ["process-compose", "version", "--short"]
    subprocess.run(
        command, env=environ | {"PC_LOG_FILE": str(null)}, stdout=subprocess.DEVNULL, check=True
    )
    assert list(tmp_path.iterdir()) == [null]


def test_json_has_the_same_in_a_stable_shape(environ: dict[str, str]) -> None:
    """One document: version, sums, and findings with six texts each."""
    done = run("--json", **environ, QUEUE_LIMIT="many")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert list(document) == ["version", "faults", "warnings", "findings"]
    assert (document["version"], document["faults"], document["warnings"]) == (1, 1, 0)
    assert list(dict.fromkeys(one["section"] for one in document["findings"])) == SECTIONS
    for one in document["findings"]:
        assert list(one) == ["section", "name", "value", "status", "note", "cure"]
        assert all(isinstance(text, str) for text in one.values())
        assert one["status"] in {"ok", "note", "warning", "fault"}
    [fault] = [one for one in document["findings"] if one["status"] == "fault"]
    assert (fault["section"], fault["name"]) == ("settings", "QUEUE_LIMIT")
    assert fault["cure"] == "it is set in the environment: set it right there"


def test_settings_show_value_and_origin_and_no_secret(
    environ: dict[str, str], checkout: Path
) -> None:
    """Each with where it comes from; secrets, passwords in addresses and in faults are hidden."""
    (checkout / ".env").write_text(
        "PSP_API_KEY=hunter2\r\nREDIS_URL=redis://:hunter2@127.0.0.1:1/0\r\nLOG_LEVEL=debug\r\n",
        newline="",
    )
    environ |= {
        "JWT_SECRET": "hunter2",
        "MERCHANT_PASSWORD": "hunter2",
        "PSP_URL": "ftp://a:hunter2@b",
    }
    for word in ("--json", ""):
        assert "hunter2" not in run(*filter(None, [word]), **environ).stdout
    items = doctor.examine(environ)
    assert (
        found(items, "settings", "PSP_API_KEY").value,
        found(items, "settings", "PSP_API_KEY").note,
    ) == ("<secret>", ".env [psp-connector]")
    assert (
        found(items, "settings", "LOG_LEVEL").value,
        found(items, "settings", "LOG_LEVEL").note,
    ) == ("debug", ".env [every service]")


def test_a_slip_of_the_pen_is_a_fault_in_dotenv_and_a_warning_in_the_shell(
    environ: dict[str, str], checkout: Path
) -> None:
    """The first is our own file."""
    (checkout / ".env").write_text("PSP_TIMEOUT_SECOND=3\n")
    [fault, warning] = wrong(doctor.settings(current(environ | {"PSP_ATTEMPT_MAX": "3"}), 9000))
    assert (
        "fault",
        "PSP_TIMEOUT_SECOND is not a setting; did you mean PSP_TIMEOUT_SECONDS?",
        f"edit {checkout / '.env'}",
    ) == (fault.status, fault.value, fault.cure)
    assert warning.status == "warning"
    assert "PSP_ATTEMPT_MAX is not a setting; did you mean PSP_ATTEMPTS_MAX?" in warning.value


def test_a_port_of_somebody_else_is_named_with_a_way_out(environ: dict[str, str]) -> None:
    """Holder, pid, and a free block."""
    port = int(environ["PLATFORM_PORT"])
    with socket.create_server(("127.0.0.1", port + 2)):
        items = Running(current(environ), port).ports()
    [fault] = wrong(items)
    assert fault.name == "core-api"
    assert f"pid {os.getpid()}" in fault.note
    assert "end it, or start with PLATFORM_PORT=" in fault.cure
    assert found(items, "ports", "router").note == "free"


def test_a_wrong_port_does_not_stop_the_rest(environ: dict[str, str]) -> None:
    """PLATFORM_PORT is told as wrong, and everything else is looked at all the same."""
    items = doctor.examine(environ | {"PLATFORM_PORT": "eighty"})
    assert any("PLATFORM_PORT='eighty'" in item.value for item in wrong(items))
    assert list(dict.fromkeys(item.section for item in items)) == SECTIONS


def test_who_may_read_the_secrets_is_looked_at(environ: dict[str, str], checkout: Path) -> None:
    """State folder 700, secret 600, `.env` with a key in it the user's alone."""
    (checkout / ".state").mkdir(mode=0o755)
    (checkout / ".state").chmod(0o755)
    (checkout / ".state/jwt-secret").write_text("s" * 64)
    (checkout / ".state/jwt-secret").chmod(0o644)
    (checkout / ".env").write_text("PSP_API_KEY=sk_test_1\n")
    (checkout / ".env").chmod(0o644)
    here = current(environ)
    items = wrong(machine.state(here) + machine.dotenv(here))
    assert [
        ("mode", "fault", f"chmod 700 {checkout}/.state"),
        ("mode of jwt-secret", "fault", f"chmod 600 {checkout}/.state/jwt-secret"),
        (".env", "warning", f"chmod 600 {checkout}/.env"),
    ] == [(item.name, item.status, item.cure) for item in items]
    for item in items:
        subprocess.run(item.cure.split(), check=True)  # the cure cures
    assert wrong(machine.state(here) + machine.dotenv(here)) == []


def test_a_file_in_the_place_of_the_state_folder_is_told(
    environ: dict[str, str], checkout: Path
) -> None:
    """It is a fault with a cure, not a traceback."""
    (checkout / ".state").write_text("")
    [item] = machine.state(current(environ))
    assert (item.status, item.note) == ("fault", "is no folder")


def test_a_clock_that_stands_in_the_past_is_told(environ: dict[str, str], checkout: Path) -> None:
    """Before the pin's date it cannot be right; a file of the future is a warning."""
    (checkout / "process-compose.yaml").touch()
    os.utime(checkout / "process-compose.yaml", (time.time() + 7200,) * 2)
    [clock, files] = machine.clock(current(environ))
    assert (clock.status, files.status) == ("ok", "warning")
    lock = json.loads((checkout / "flake.lock").read_text())
    lock["nodes"]["nixpkgs"]["locked"]["lastModified"] = int(time.time()) + 86_400
    (checkout / "flake.lock").write_text(json.dumps(lock))
    [clock] = machine.clock(current(environ))
    assert clock.status == "fault"
    assert "before the date of the pinned nixpkgs" in clock.note


def test_a_lock_that_cannot_be_read_is_told(environ: dict[str, str], checkout: Path) -> None:
    """Without it nothing is pinned."""
    (checkout / "flake.lock").write_text("<<<<<<<")
    [item] = machine.flake(current(environ))
    assert (item.status, item.cure) == ("fault", "take it back: git checkout flake.lock")


@pytest.mark.parametrize("free", [50, 500, 5000])
def test_room_on_the_disk(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    """Under 100 MiB is a fault, under 1 GiB a warning."""
    usage = type("Usage", (), {"free": free * 1024**2})
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    [item] = machine.disk(current(environ))
    assert {50: "fault", 500: "warning", 5000: "ok"}[free] == item.status


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_versions_are_held_against_the_pin_and_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pinned, another one, too old, silent, hanging and missing: each is said."""
    monkeypatch.setattr(versions, "_ANSWER_SECONDS_MAX", 1)
    pin = versions.pinned()
    program(tmp_path, "redis-server", "echo Redis server v=7.2.1 sha=0:0")
    program(tmp_path, "redis-cli", "echo redis-cli 6.0.16")
    program(tmp_path, "caddy", f"echo v{pin['caddy']} h1:x")
    program(tmp_path, "process-compose", "exec /bin/sleep 30")
    program(tmp_path, "curl", "exit 1")
    items = versions.findings({"PATH": str(tmp_path)})
    told = {item.name: (item.value, item.status, item.note) for item in items}
    assert ("7.2.1", "note", f"the pin has {pin['redis']}") == told["redis-server"]
    assert told["redis-cli"] == ("6.0.16", "fault", "needs 7.0 on")
    assert (pin["caddy"], "ok", "as pinned") == told["caddy"]
    assert told["process-compose"] == ("unknown", "warning", "version not recognised")
    assert told["curl"] == ("unknown", "warning", "version not recognised")
    assert told["nix"][:2] == ("missing", "note")
    nothing = found(versions.findings({}), "programs", "caddy")
    assert (nothing.value, nothing.status) == ("missing", "fault")


@pytest.mark.parametrize(
    "options", [[], ["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]]
)
def test_redis_must_keep_what_it_is_given(
    environ: dict[str, str], tmp_path: Path, options: list[str]
) -> None:
    """Ours does; one without append-only file, or that evicts, is a fault, wherever it runs."""
    port = free_ports(1)
    environ["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    with redis_server(tmp_path / "redis", port, *options):
        items = Running(current(environ), int(environ["PLATFORM_PORT"])).redis()
    assert (["append-only file", "when full"] if options else []) == [
        item.name for item in wrong(items)
    ]
    assert found(items, "redis", "clock").value == "as ours"


def test_open_transactions_in_no_queue_are_shown(tmp_path: Path, environ: dict[str, str]) -> None:
    """A payment that nothing will end is a warning, with what to do."""
    port = free_ports(1)
    environ["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    with redis_server(tmp_path / "redis", port), redis.Redis(port=port) as client:
        client.xgroup_create(store.QUEUE, store.GROUP, id="0", mkstream=True)
        key = store.transaction_key("00000000-0000-4000-8000-000000000000")
        client.hset(key, mapping={"status": "processing", "entry": "1-1"})
        items = Running(current(environ), int(environ["PLATFORM_PORT"])).redis()
        client.hset(key, "status", "captured")
        healthy = Running(current(environ), int(environ["PLATFORM_PORT"])).redis()
    item = found(items, "redis", "open, in no queue")
    assert (item.value, item.status, "connector" in item.cure) == ("1", "warning", True)
    assert found(healthy, "redis", "open, in no queue").value == "0"


def test_a_redis_that_does_not_answer_is_told_soon(environ: dict[str, str]) -> None:
    """It took the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ["REDIS_URL"] = f"redis://:hunter2@127.0.0.1:{silent.getsockname()[1]}/0"
        began = time.monotonic()
        [item] = Running(current(environ), int(environ["PLATFORM_PORT"])).redis()
    assert (item.value, item.status) == ("no answer", "fault")
    assert "hunter2" not in repr(item)
    assert time.monotonic() - began < 15


def test_a_service_that_hangs_is_told_and_so_is_a_stranger(environ: dict[str, str]) -> None:
    """Who listens but does not answer /health is a fault."""
    port = int(environ["PLATFORM_PORT"])
    with socket.create_server(("127.0.0.1", port + PORT_OFFSETS["auth-api"])):
        [item] = Running(current(environ), port).health()
    assert (item.name, item.value, item.status) == ("auth-api", "no answer", "fault")


def test_what_was_left_behind_is_told_with_its_pid(environ: dict[str, str], checkout: Path) -> None:
    """A process with our state folder and no supervisor above it."""
    port = int(environ["PLATFORM_PORT"])
    listen = f"s = socket.create_server(('127.0.0.1', {port}))"
    code = f"import socket, sys; {listen}; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environ | {"PLATFORM_STATE": str(checkout / ".state"), "PC_PROC_NAME": "router"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as orphan:
        assert orphan.stdout
        assert orphan.stdin
        orphan.stdout.readline()
        running = Running(current(environ), port)
        [item] = running.left_behind()
        assert f"ours: python, pid {orphan.pid}" == found(running.ports(), "ports", "router").note
        orphan.stdin.close()
    assert ("fault", f"router, pid {orphan.pid}") == (item.status, item.value)
    assert "`platform down` ends them" in item.cure


def test_a_probe_that_breaks_or_hangs_stops_no_other() -> None:
    """Each is a finding of its own, within the bound."""

    def breaks() -> list[Finding]:
        raise OSError("the disk is gone")

    def hangs() -> list[Finding]:
        time.sleep(30)
        return []

    def works() -> list[Finding]:
        return [Finding("c", "x", "1")]

    items = doctor.run({"a": breaks, "b": hangs, "c": works}, seconds_max=0.5)
    assert [(i.section, i.status) for i in items] == [("a", "fault"), ("b", "fault"), ("c", "ok")]
    assert items[0].note == "OSError: the disk is gone"


def test_columns_are_aligned() -> None:
    """Marks, names, values and notes stand under each other; a cure is indented below."""
    text = findings.as_text(
        [
            Finding("ports", "router", "8000", note="free"),
            Finding("ports", "redis", "8", "fault", "held", "end it"),
        ]
    )
    assert text == (
        "ports\n  router  8000  free\nX redis   8     held\n    -> end it\n\n"
        "1 fault (X), 0 warnings (!)\n"
    )


def test_the_pinned_versions_are_one_list() -> None:
    """What nixw says and what is built comes from the list that the doctor reads."""
    known: dict[str, Any] = dict(versions.pinned())
    assert set(known) == {"python", "redis", "caddy", "process-compose"}
    for path in ("nix/host/packages.nix", "nix/host/prepare.sh"):
        text = (ROOT / path).read_text()
        assert [number for number in known.values() if number in text] == [], path
