from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.router.helpers import CONFIG, Platform, Router, platform_in


@pytest.fixture(scope="session")
def shared_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_in(tmp_path_factory.mktemp("router")) as platform:
        yield platform


@pytest.fixture
def platform(shared_platform: Platform) -> Platform:
    """The shared platform, reset to default responses."""
    for service in (shared_platform.auth, shared_platform.core):
        service.seen.clear()
        service.answers.clear()
    return shared_platform


@pytest.fixture
def router(platform: Platform) -> Router:
    return platform.router


@pytest.fixture
def impatient(tmp_path: Path) -> Path:
    """The router's configuration with timeouts in seconds cut to a tenth."""
    path = tmp_path / "Caddyfile"
    path.write_text(re.sub(r"\b(\d+)s\b", r"\g<1>00ms", CONFIG.read_text()))
    return path
