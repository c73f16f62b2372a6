"""Shared by the tests of devtools: a folder that looks like a checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devtools.address import BLOCK
from devtools.findings import Finding
from tests.support import ROOT, free_ports


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout and is the working folder."""
    (tmp_path / "process-compose.yaml").touch()
    (tmp_path / "services").mkdir()
    (tmp_path / "flake.lock").write_text((ROOT / "flake.lock").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def environ(checkout: Path) -> dict[str, str]:
    del checkout  # only has to exist
    return {"PATH": os.environ["PATH"], "PLATFORM_PORT": str(free_ports(BLOCK))}


def one(items: list[Finding], section: str, name: str) -> Finding:
    [found] = [item for item in items if (item.section, item.name) == (section, name)]
    return found


def wrong(items: list[Finding]) -> list[Finding]:
    return [item for item in items if item.status in {"fault", "warning"}]
