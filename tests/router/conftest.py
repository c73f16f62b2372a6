import re
from collections.abc import Iterator

import pytest

from tests.http_service import Service, service_on
from tests.router.helpers import CONFIG, Platform, Router, platform_in, router_on
from tests.support import free_ports


@pytest.fixture(scope="session")
def shared_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_in(tmp_path_factory.mktemp("router")) as platform:
        yield platform


@pytest.fixture
def platform(shared_platform: Platform) -> Platform:
    """The shared platform, reset to default responses."""
    for service in (shared_platform.auth, shared_platform.core):
        service.seen.clear()
        service.replies.clear()
    return shared_platform


@pytest.fixture
def router(platform: Platform) -> Router:
    return platform.router


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Router, Service]]:
    """A router with timeouts cut to a tenth, and its Auth API; there is no Core API."""
    folder, port = tmp_path_factory.mktemp("impatient"), free_ports(3)
    config = folder / "Caddyfile"
    config.write_text(re.sub(r"\b(\d+)s\b", r"\g<1>00ms", CONFIG.read_text()))
    with service_on(port + 1) as auth, router_on(folder, port, config) as router:
        yield router, auth
