from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.harness import FIGURES, Chaos
from tests.stack.stack import running

# Short waits, so that much can go wrong in little time; enough attempts that none fails by chance,
# which would look like a lost one.
FAST_RETRIES: dict[str, Any] = {
    "PSP_BACKOFF_SECONDS": "0.02",
    "PSP_BACKOFF_SECONDS_MAX": "0.5",
    "PSP_TIMEOUT_SECONDS": "1",
    "PSP_ATTEMPTS_MAX": "50",
}


@pytest.fixture
def chaos() -> Iterator[Chaos]:
    """A stack for one test that breaks it."""
    with running(**FAST_RETRIES) as stack:
        yield Chaos(stack)


@pytest.fixture(scope="module")
def long_running() -> Iterator[Chaos]:
    """A stack for all tests of a module; later tests check earlier payments."""
    with running(**FAST_RETRIES) as stack:
        yield Chaos(stack)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the figures, whether the tests passed or not."""
    if FIGURES:
        terminalreporter.section("figures")
        for line in FIGURES:
            terminalreporter.line(line)
