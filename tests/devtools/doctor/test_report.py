"""The doctor finds faults, names the remedy, and never hangs."""

import io
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devtools import processes, state
from devtools.catalog import LISTENERS, SERVICES
from devtools.checkout import current
from devtools.doctor import __main__ as doctor
from devtools.doctor import findings, machine
from devtools.doctor.findings import Finding
from devtools.supervisor import ProcessState
from devtools.terminal import Output
from tests.devtools.conftest import SECRETS, one, readers_of, wrong
from tests.support import CLOSED_PORT, script

SECTIONS = ["programs", "ports", "health", "redis", "settings", "state", "machine"]


def report(environ: dict[str, str], *arguments: str) -> tuple[int, str]:
    """The exit code and the output."""
    out = io.StringIO()
    return doctor.main(arguments, environ, out), out.getvalue()


def test_a_fresh_checkout_has_no_fault(environ: dict[str, str], checkout: Path) -> None:
    """Without a running stack the exit code is 0, and the doctor writes nothing.

    Not even process-compose, which truncates its log when it is asked for its version.
    """
    environ |= {"PC_LOG_FILE": str(checkout / "pc.log"), "PROC_COMP_CONFIG": str(checkout)}
    before = sorted(checkout.rglob("*"))
    code, text = report(environ)
    heads = [line for line in text.splitlines() if line and line[0] not in " !X"]
    assert (code, heads) == (0, [*SECTIONS, "no problems found"])
    assert sorted(checkout.rglob("*")) == before


def test_json_has_a_stable_schema(environ: dict[str, str], checkout: Path) -> None:
    """One document has version, totals and findings of six texts; a wrong port hides none."""
    (checkout / ".env").write_text("PSP_TIMEOUT_SECOND=3\n")
    environ |= {"QUEUE_LIMIT": "many", "PLATFORM_PORT": "eighty"}
    code, text = report(environ, "--json")
    document = json.loads(text)
    assert code == 1
    assert list(document) == ["version", "faults", "warnings", "findings"]
    assert document["version"] == 1
    assert list(dict.fromkeys(item["section"] for item in document["findings"])) == SECTIONS
    for item in document["findings"]:
        assert list(item) == ["section", "name", "value", "status", "note", "remedy"]
        assert all(isinstance(text, str) for text in item.values())
    faults = [item for item in document["findings"] if item["status"] == "fault"]
    # Without those of the default ports, which a running stack of the developer may have.
    assert [item["name"][:20] for item in faults if item["section"] != "ports"] == [
        "PLATFORM_PORT='eight",
        ".env: PSP_TIMEOUT_SE",
        "QUEUE_LIMIT='many': ",
    ]
    assert all(item["remedy"] for item in faults)


def test_processes_that_share_a_port_are_a_fault(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before the start that preflight would stop."""
    offset = SERVICES["auth-api"].port_offset
    monkeypatch.setitem(LISTENERS, "core-api", replace(SERVICES["core-api"], port_offset=offset))
    [fault] = wrong(doctor.examine(environ))
    assert fault.name.startswith("auth-api and core-api have the same port, ")


def test_a_running_stack_is_examined_at_its_own_port(
    environ: dict[str, str], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PLATFORM_PORT may have changed since: that is the next start's."""
    state.prepare(checkout / ".state")
    (checkout / ".state/environment").write_text("export PLATFORM_PORT=20000\n")
    found = {(item.section, item.name): item for item in doctor.examine(environ)}
    assert found["ports", "router"].value == environ["PLATFORM_PORT"]
    assert ("ports", "stack") not in found
    monkeypatch.setattr(processes, "running_environ", lambda _state: {"PLATFORM_PORT": "20000"})
    found = {(item.section, item.name): item for item in doctor.examine(environ)}
    assert found["ports", "router"].value == "20000"
    assert found["ports", "stack"].note == (
        f"the next start takes PLATFORM_PORT={environ['PLATFORM_PORT']}"
    )
    assert found["settings", "PLATFORM_PORT"].value == environ["PLATFORM_PORT"]
    for port in ("20000", "abc"):
        items = doctor.examine(environ | {"PLATFORM_PORT": port})
        assert ("ports", "stack") not in {(item.section, item.name) for item in items}


def test_settings_show_value_and_origin_but_no_secret(
    environ: dict[str, str], checkout: Path
) -> None:
    """The shell, even with an empty value, overrides `.env`, then the stack, then the default.

    Secrets are hidden, even in addresses and faults.
    """
    address = f"127.0.0.1:{CLOSED_PORT}/0"
    (checkout / ".env").write_text(
        f"PSP_API_KEY=hunter2\nREDIS_URL=redis://:hunter2@{address}\nWORKERS=3\nQUEUE_LIMIT=7\n"
    )
    environ |= {"MERCHANT_PASSWORD": "hunter2", "WORKERS": "4", "QUEUE_LIMIT": ""}
    _, text = report(environ | {"PSP_URL": "ftp://a:hunter2@b"})
    assert "hunter2" not in text
    assert {" ".join(line.split()) for line in text.splitlines()} >= {
        "MERCHANT_PASSWORD <secret> environment [stack]",
        f"WORKERS 4 environment [{readers_of('WORKERS')}]",
        "QUEUE_LIMIT 100000 default [core-api]",
        "PSP_API_KEY <secret> .env [psp-connector]",
        f"REDIS_URL redis://<secret>@{address} .env [{readers_of('REDIS_URL')}]",
        f"JWT_SECRET <secret> stack (JWT_SECRET_FILE) [{readers_of('JWT_SECRET')}]",
    }


def test_what_the_stack_sets_depends_on_other_settings(
    environ: dict[str, str], checkout: Path
) -> None:
    """Another PSP is not the sandbox's account, and no traces go to a console that is off."""
    assert "PSP_ACCOUNT sandbox stack" in " ".join(report(environ)[1].split())
    (checkout / ".env").write_text("PSP_URL=https://psp.invalid\n")
    text = " ".join(report(environ | {"CONSOLE": "off"})[1].split())
    assert "PSP_ACCOUNT - default" in text
    assert "OTEL_EXPORTER_OTLP_ENDPOINT - default" in text


def test_files_with_secrets_must_be_private(environ: dict[str, str], checkout: Path) -> None:
    """The state folder has mode 700, secrets and `.env` 600; each remedy works."""
    (checkout / ".state").mkdir()
    (checkout / ".state/version").write_text("1")
    (checkout / ".state/jwt-secret").write_text("s" * 64)
    (checkout / ".env").write_text("PSP_API_KEY=sk_test_1\n")
    for name in (".state", ".state/jwt-secret", ".env"):
        (checkout / name).chmod(0o755)
    here = current(environ)
    items = wrong(machine.state(here) + machine.dotenv(here))
    assert [(item.name, item.status, item.remedy) for item in items] == [
        ("mode", "fault", f"chmod 700 {checkout}/.state"),
        ("mode of jwt-secret", "fault", f"chmod 600 {checkout}/.state/jwt-secret"),
        (".env", "warning", f"chmod 600 {checkout}/.env"),
    ]
    for item in items:
        subprocess.run(item.remedy.split(), check=True)
    assert wrong(machine.state(here) + machine.dotenv(here)) == []


def test_every_secret_in_dotenv_is_recognized(environ: dict[str, str], checkout: Path) -> None:
    """If others can read `.env`, each setting that is a secret or may hold one is warned of."""
    for variable in (*SECRETS, "OTEL_EXPORTER_OTLP_HEADERS", "MERCHANT_PASSWORD"):
        (checkout / ".env").write_text(f"{variable}=hunter2\n")
        (checkout / ".env").chmod(0o644)
        assert [item.name for item in wrong(machine.dotenv(current(environ)))] == [".env"], variable


def test_faults_of_the_machine_are_reported(environ: dict[str, str], checkout: Path) -> None:
    """A folder of another version, a file as folder, and a clock in the past are reported."""
    here = current(environ)
    assert wrong(machine.clock(here)) == []
    (checkout / ".state").mkdir(mode=0o700)
    (checkout / ".state/version").write_text("2")
    [fault] = wrong(machine.state(here))
    assert "made by another version" in fault.note
    assert "platform reset" in fault.remedy
    shutil.rmtree(checkout / ".state")
    (checkout / ".state").write_text("")
    os.utime(checkout / "flake.lock", times=(0, time.time() + 86_400))
    notes = [item.note for item in machine.state(here) + machine.clock(here)]
    assert notes == [f"{checkout}/.state is not a folder", "before flake.lock was written"]


def test_a_deleted_log_is_a_warning(environ: dict[str, str], checkout: Path) -> None:
    """Of a process that was ready; a replica has a file of its own."""
    (checkout / ".state/logs").mkdir(parents=True)
    (checkout / ".state/logs/core-api.log").touch()
    core_api = ProcessState("core-api-0", "Running", 1, True, True, 0, 0, None, None)
    replica = replace(core_api, name="core-api-1")
    starting = replace(core_api, name="auth-api", is_ready=False)
    found = machine.logs(current(environ), [core_api, replica, replica, starting])
    assert [(item.name, item.status) for item in found] == [("core-api-1", "warning")]


@pytest.mark.parametrize(("free_mib", "status"), [(50, "fault"), (500, "warning"), (5000, "ok")])
def test_disk_space(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, free_mib: int, status: str
) -> None:
    """Under 100 MiB is a fault, under 1 GiB a warning."""
    usage = SimpleNamespace(free=free_mib * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    assert [item.status for item in machine.disk(current(environ))] == [status]


def test_versions_are_compared_with_the_pin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version may match, differ, come late or be missing."""
    monkeypatch.setattr(machine, "_RESPONSE_SECONDS_MAX", 0.5)
    pin = machine.pinned()
    programs = {
        "redis-server": "echo Redis server v=7.2.1 sha=0:0",
        "redis-cli": "echo redis-cli 7.0.15",
        "caddy": f"echo v{pin['caddy']} h1:x",
        "process-compose": "exec /bin/sleep 30",
    }
    for name, text in programs.items():
        script(tmp_path / name, text)
    items = machine.programs({"PATH": str(tmp_path)})
    found = {item.name: (item.value, item.status, item.note) for item in items}
    del found["python"]
    assert found == {
        "redis-server": ("7.2.1", "note", f"pinned: {pin['redis']}"),
        "redis-cli": ("7.0.15", "note", f"pinned: {pin['redis']}"),
        "caddy": (pin["caddy"], "ok", "as pinned"),
        "process-compose": (
            "unknown",
            "warning",
            "no response within 0.5 s; the machine may be busy",
        ),
    }
    assert one(machine.programs({}), "caddy").status == "fault"


def test_a_probe_that_fails_or_hangs_stops_no_other() -> None:
    """Each becomes a finding within the time limit."""
    probes: dict[str, Any] = {
        "a": lambda: 1 / 0,
        "b": lambda: time.sleep(30),
        "c": lambda: [Finding("x", "1")],
    }
    items = doctor.run(probes, seconds_max=0.2)
    assert [(i.section, i.status) for i in items] == [("a", "fault"), ("b", "fault"), ("c", "ok")]
    assert items[0].note == "ZeroDivisionError: division by zero"


def test_text_is_aligned_and_colours_can_be_forced() -> None:
    text = io.StringIO()
    found = [
        Finding("router", "8000", note="free", section="ports"),
        Finding("redis", "8", "fault", "held", "end it", section="ports"),
    ]
    findings.print_text(found, Output(text, {"FORCE_COLOR": "1"}))
    assert text.getvalue() == (
        "ports\n  router  8000  free\n\x1b[31mX\x1b[0m redis   8     held\n    -> end it\n\n"
        "faults (X): 1, warnings (!): 0\n"
    )
