"""Code that is being edited: the broken file is named, and commands that do not need it work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.address import BLOCK
from tests.support import call, copied, free_ports

SETTINGS, TOML = "services/core_api/settings.py", "services/core_api/service.toml"
YAML, CORE_API = "process-compose.yaml", "\n  core-api:\n"
CADDYFILE = "services/router/Caddyfile"
ROUTE = "\t\timport service auth {$AUTH_API_ADDRESS:127.0.0.1:AUTH_API_ADDRESS-is-not-set}\n"
BROKEN = [
    ("def def", ", line {0}: SyntaxError: invalid syntax (settings.py, line {0})"),
    ("import nil", ", line {0}: ModuleNotFoundError: No module named 'nil'"),
    ("nil", ", line {0}: NameError: name 'nil' is not defined"),
    ("raise SystemExit(1)", ", line {0}: SystemExit: 1"),
    ("class More(CoreSettings): ...", ": TypeError: must have one settings class, not 2"),
    ("class More(CoreSettings): a = 1", ", line {0}: PydanticUserError: "),
]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of this code, that runs its stack's commands."""
    return copied(tmp_path, "nix/host")


def run(code: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the copy."""
    launch = [sys.executable, "-I", "-X", "utf8", str(code / "devtools/launch.py")]
    module, *args = command.split()
    environ = {
        "PATH": os.environ["PATH"],
        "PLATFORM_CODE": str(code),
        "PLATFORM_PORT": str(free_ports(BLOCK)),
    }
    return call([*launch, f"devtools.{module}", *args], environ, cwd=code)


def append(path: Path, line: str) -> int:
    """Adds a line to the file; returns its number."""
    text = f"{path.read_text('utf-8')}{line}\n"
    path.write_text(text, "utf-8")
    return text.count("\n")


@pytest.mark.parametrize(("line", "error"), BROKEN)
def test_a_broken_service_is_one_fault(code: Path, line: str, error: str) -> None:
    """The doctor makes all other checks; preflight refuses to start the stack."""
    expected = f"{SETTINGS}{error.format(append(code / SETTINGS, line))}"
    done = run(code, "doctor --json")
    found = json.loads(done.stdout)["findings"]
    [fault] = [item for item in found if item["status"] == "fault"]
    assert (done.stderr, fault["remedy"]) == ("", "correct that file")
    assert fault["name"].startswith(expected)
    assert {item["section"] for item in found} >= {"programs", "ports", "health", "settings"}
    done = run(code, "preflight")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (78, f"  {fault['name']}")


@pytest.mark.parametrize(
    "text",
    [
        "port_offset",
        "port_offset = 9",
        "port_offset = 9\nrout = 1",
        "port_offset = 9\nname = 'a'",
        "packages = []",
    ]
    + [f"port_offset = {offset}" for offset in ("'2'", "2.0", "70000")]
    + [
        f"port_offset = 2\n{line}"
        for line in ("route = '/x y'", "needs = 'redis'", "stop_seconds = 'a'", "description = 5")
    ],
)
@pytest.mark.parametrize("command", ["doctor", "merchant token --as alice", "preflight"])
def test_a_broken_service_toml_is_named(code: Path, text: str, command: str) -> None:
    """In one line: a syntax error, an unknown or missing key, a value that cannot be."""
    (code / TOML).write_text(text, "utf-8")
    done = run(code, command)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"platform: correct {code / TOML}: ")


@pytest.mark.parametrize(
    ("file", "before", "after", "names"),
    [
        (YAML, CORE_API, "\n  mine:\n", "core-api"),
        (YAML, CORE_API, f"\n  x-api:\n    command: python -m services.x_api{CORE_API}", "x-api"),
        (CADDYFILE, "service transactions", "service former", "/former, /transactions"),
        (CADDYFILE, ROUTE, f"{ROUTE}{ROUTE.replace('auth', 'x').replace('AUTH', 'X')}", "/x"),
        (CADDYFILE, None, None, "/auth, /transactions"),
    ],
)
def test_a_file_that_does_not_match_the_services_is_named(
    code: Path, file: str, before: str | None, after: str, names: str
) -> None:
    """As after a merge or a folder deleted by hand; the remedy is `new sync`."""
    if before is None:
        (code / file).unlink()
    else:
        text = (code / file).read_text("utf-8")
        (code / file).write_text(text.replace(before, after, 1), "utf-8")
    line = f"{file} and services/ do not match ({names}): `new sync`"
    done = run(code, "preflight")
    assert (done.returncode, done.stderr.splitlines()[1:]) == (78, [f"  {line}"])
    faults = [row.split(maxsplit=1) for row in run(code, "doctor").stdout.splitlines()]
    assert ["X", line] in faults


def test_a_copy_of_a_folder_is_no_service(code: Path) -> None:
    """An editor's hidden folder and a backup have no name of a Python package."""
    for copy in ("core_api.bak", ".ipynb_checkpoints"):
        shutil.copytree(code / "services/core_api", code / "services" / copy)
    assert run(code, "doctor").returncode == 0
