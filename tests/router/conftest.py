from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.router.helpers import Answer, Platform, Router, platform_in, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

# Longer than every timeout of the router.
QUIET_SECONDS = 25.0


@pytest.fixture(scope="session")
def shared_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_in(tmp_path_factory.mktemp("router")) as platform:
        yield platform


@pytest.fixture
def platform(shared_platform: Platform) -> Platform:
    """The shared platform, with nothing seen yet and nothing special to answer."""
    for service in (shared_platform.auth, shared_platform.core):
        service.seen.clear()
        service.answers.clear()
    return shared_platform


@pytest.fixture
def router(platform: Platform) -> Router:
    return platform.router


@pytest.fixture(scope="session", autouse=True)
def _waiting_begun(request: pytest.FixtureRequest) -> None:
    """Begins what takes long before the first test, when a test of this run asks for it."""
    if any("waiting" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("waiting")


@pytest.fixture(scope="session")
def waiting(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Platform, dict[str, Future[bytes]]]]:
    """Exchanges that end by a timeout of the router: all at once, beside the other tests."""
    head = b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\n"
    sent = {
        "slow headers": head,
        "half-sent body": head + b"Content-Length: 20\r\n\r\n0123456789",
        "slow service": b"GET /transactions/slow HTTP/1.1\r\nHost: localhost\r\n\r\n",
    }
    with (
        platform_in(tmp_path_factory.mktemp("waiting")) as platform,
        ThreadPoolExecutor(len(sent) + 1) as pool,
    ):
        platform.core.answers["/slow"] = Answer(wait_seconds=QUIET_SECONDS)
        exchanges = {
            name: pool.submit(platform.router.raw, text, quiet_seconds=QUIET_SECONDS)
            for name, text in sent.items()
        }
        exchanges["dripping body"] = pool.submit(_drip, platform.router, head)
        yield platform, exchanges
        platform.core.stopped.set()


def _drip(router: Router, head: bytes) -> bytes:
    """Sends a byte each half second, so that no silence is ever long."""
    with router.connect() as connection:
        connection.sendall(head + b"Content-Length: 1000\r\n\r\n")
        received = b""
        for _half_second in range(int(QUIET_SECONDS * 2)):
            connection.sendall(b"x")
            if received := read_all(connection, 0.5):
                break
        return received
