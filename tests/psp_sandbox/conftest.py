"""A sandbox for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.psp_sandbox.store import Store
from tests.psp_sandbox.sandbox import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    store = Store(None)
    yield Sandbox(store)
    store.close()
