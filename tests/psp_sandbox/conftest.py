"""A sandbox for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.psp_sandbox.store import Store
from tests.psp_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    store = Store(None)
    yield Sandbox(store)
    store.close()
