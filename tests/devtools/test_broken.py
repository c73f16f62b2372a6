"""Code that is being edited: the broken file is named, and commands that do not need it work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.address import BLOCK
from tests.support import ROOT, call, free_ports

SETTINGS, TOML = "services/core_api/settings.py", "services/core_api/service.toml"
BROKEN = [
    ("def def", ": SyntaxError: invalid syntax (settings.py, line {})"),
    ("import nil", ", line {}: ModuleNotFoundError: No module named 'nil'"),
    ("nil", ", line {}: NameError: name 'nil' is not defined"),
]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of this code, that runs its stack's commands."""
    for folder in ("services", "devtools", "nix/host"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "process-compose.yaml", tmp_path)
    return tmp_path


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


@pytest.mark.parametrize(("line", "fault"), BROKEN)
def test_a_broken_service_is_one_fault(code: Path, line: str, fault: str) -> None:
    """The doctor makes all other checks; preflight refuses to start the stack."""
    file = code / SETTINGS
    expected = f"core-api: {file}{fault.format(append(file, line))}"
    done = run(code, "doctor --json")
    found = json.loads(done.stdout)["findings"]
    faults = [(item["name"], item["remedy"]) for item in found if item["status"] == "fault"]
    assert (done.stderr, faults) == ("", [(expected, "correct that file")])
    assert {item["section"] for item in found} >= {"programs", "ports", "health", "settings"}
    done = run(code, "preflight")
    assert (done.returncode > 0, done.stderr.endswith(f"{expected}\n")) == (True, True)


@pytest.mark.parametrize("text", ["port_offset", "port_offset = 9\nrout = 1", "packages = []"])
@pytest.mark.parametrize("command", ["doctor", "merchant token --as alice", "preflight"])
def test_a_broken_service_toml_is_named(code: Path, text: str, command: str) -> None:
    """In one line: a syntax error, an unknown key, a missing one."""
    (code / TOML).write_text(text, "utf-8")
    done = run(code, command)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"platform: correct {code / TOML}: ")


def test_a_copy_of_a_folder_is_no_service(code: Path) -> None:
    """An editor's hidden folder and a backup have no name of a Python package."""
    for copy in ("core_api.bak", ".ipynb_checkpoints"):
        shutil.copytree(code / "services/core_api", code / "services" / copy)
    assert run(code, "doctor").returncode == 0
