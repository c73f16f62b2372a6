"""Shared by the tests of devtools: a folder that looks like a checkout."""

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from devtools.address import BLOCK
from devtools.checkout import current
from devtools.doctor.findings import Finding
from devtools.doctor.stack import Running
from devtools.settings import SETTINGS
from services.common.settings import Secret
from tests.support import ROOT, free_ports

# Prints that it runs, then waits for the end of its input, at the latest with the test.
WAIT = "print('up', flush=True); sys.stdin.read()"
# The variables of all settings that are secrets.
SECRETS = {
    name.upper()
    for settings in SETTINGS.values()
    for name, field in settings.model_fields.items()
    if field.annotation in (Secret, Secret | None)
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout and is the working folder."""
    (tmp_path / "process-compose.yaml").touch()
    (tmp_path / "services").mkdir()
    (tmp_path / "flake.lock").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def environ(checkout: Path) -> dict[str, str]:
    del checkout  # only has to exist
    port = str(free_ports(BLOCK))
    return {"PATH": os.environ["PATH"], "PLATFORM_CODE": str(ROOT), "PLATFORM_PORT": port}


def one(items: list[Finding], name: str) -> Finding:
    [found] = [item for item in items if item.name == name]
    return found


def wrong(items: list[Finding]) -> list[Finding]:
    return [item for item in items if item.status in {"fault", "warning"}]


def at_terminal(
    command: Sequence[str], environ: Mapping[str, str], typed: str = ""
) -> tuple[int, str]:
    """Runs a program at a terminal on which this was typed; returns its exit code and output."""
    keyboard, terminal = pty.openpty()
    os.write(keyboard, typed.encode())
    done = subprocess.run(
        command, cwd=ROOT, env=environ, stdin=terminal, stdout=terminal, stderr=terminal,
        timeout=60, check=False,
    )  # fmt: skip
    os.close(terminal)
    screen = b""
    with contextlib.suppress(OSError):  # the end of the output on Linux
        while data := os.read(keyboard, 65_536):
            screen += data
    os.close(keyboard)
    return done.returncode, screen.decode()


@contextlib.contextmanager
def python(code: str, *prefix: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that has started to wait."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", f"import os, signal, subprocess, sys; {code}"],
        env={"PATH": os.environ["PATH"]} | environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def readers_of(variable: str) -> str:
    """The services that read a setting, with those that `new` has made."""
    return ", ".join(name for name, service in SETTINGS.items() if variable in service.variables())


def running(environ: dict[str, str], **more: str) -> Running:
    """The checks of a stack in which nothing runs yet."""
    return Running(current(environ | more), int(environ["PLATFORM_PORT"]))
