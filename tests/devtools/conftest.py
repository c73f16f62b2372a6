"""Shared by the tests of devtools: a folder that looks like a checkout."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.address import BLOCK
from devtools.doctor.findings import Finding
from tests.support import ROOT, free_ports

# Prints that it runs, then waits for the end of its input, at the latest with the test.
WAIT = "print('up', flush=True); sys.stdin.read()"


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
