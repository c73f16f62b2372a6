import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.catalog import CONSOLE
from tests.browser.person import Person, chromium
from tests.stack.stack import Stack, running
from tests.support import ROOT


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stack's users file."""
    copy = tmp_path_factory.mktemp("users") / "users.json"
    copy.write_bytes((ROOT / "services/auth_api/users.json").read_bytes())
    return copy


@pytest.fixture(scope="session")
def stack(users: Path) -> Iterator[Stack]:
    """A stack with its console; a payment is given up after two attempts."""
    with running(CONSOLE="on", PSP_ATTEMPTS_MAX="2", USERS_FILE=str(users)) as started:
        started.wait_for_log("console", "listening")
        yield started


@pytest.fixture(scope="session")
def tab(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """A browser for all tests; SCREENSHOTS names the folder for its pictures of the pages."""
    folder = os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots")
    url = f"http://127.0.0.1:{CONSOLE.port(stack.port)}"
    with chromium() as browser:
        yield Person(browser, url, Path(folder))


@pytest.fixture
def person(tab: Person) -> Iterator[Person]:
    """A person with a wide, light screen; no page may have complained when the test ends."""
    tab.set_screen(1280)
    tab.console_errors()
    yield tab
    assert tab.console_errors() == []
