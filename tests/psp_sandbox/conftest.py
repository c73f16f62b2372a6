"""A sandbox for each test, with a clock that the test sets."""

from collections.abc import Iterator

import pytest

from services.psp_sandbox.store import Store
from tests.psp_sandbox.sandbox import Clock, Sandbox


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    store = Store(None, clock)
    yield Sandbox(store)
    store.close()
