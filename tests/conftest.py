import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import structlog
from hypothesis import HealthCheck, settings

from services.common import redis_check
from tests import support

# No deadline per example: the machine may be slow. Examples are the same in each run, so that a red
# check is red everywhere.
settings.register_profile(
    "platform",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("platform")

# The tests' servers are on the loopback; httpx would ask the user's proxy for them.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]

# Tests that are about logs read them from a process's output.
structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto` uses one more than cores, because tests also wait; each takes 3 s to start."""
    return min(1 + (os.cpu_count() or 1), 8)


@pytest.fixture(autouse=True)
def no_request_id() -> None:
    """Clears the request id left by an earlier test."""
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A private Redis for this test run, with a user that has the services' permissions only."""
    port = support.free_ports(1)
    with (
        support.redis_server(tmp_path_factory.mktemp("redis"), port),
        redis.Redis(port=port) as connection,
    ):
        used = redis_check.COMMANDS + redis_check.COMMANDS_WITHOUT_KEYS
        rules = [f"+{command}" for command in [*used, "AUTH", "HELLO", "SELECT", "WAIT"]]
        connection.execute_command("ACL SETUSER", "services", "on", "nopass", "~*", "-@all", *rules)
        yield port


@pytest.fixture
def client(redis_port: int) -> Iterator[Any]:
    """A client of the private Redis, which is emptied first."""
    with redis.Redis(port=redis_port, decode_responses=True) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener.getsockname()[1]
