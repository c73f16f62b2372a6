from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stack.stack import Stack, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One stack for all tests that leave it as it was."""
    with running() as started:
        yield started
