"""The platform as it is shipped, and its floor: the same stack with the services' apps emptied."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import httpx

from bench.errors import MeasureError
from bench.load import Request
from bench.plan import CONNECTIONS
from devtools.address import PORT_OFFSETS
from services.auth_api.passwords import hash_password
from services.common.tokens import Tokens, TokenSettings
from tests import support
from tests.stack import stack as stacks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.common import store
    from tests.stack.stack import Stack

COMPOSE_FILE = support.ROOT / "process-compose.yaml"
EMPTIED = ("auth_api", "core_api")
PASSWORD = "password"  # noqa: S105  of users that exist for some minutes
USERS = 4_000
_FIRST_USER_ID = 1000
# The connector is stopped while requests are measured, so that its work is not part of theirs; the
# limit is high, so that the backlog of an earlier run causes no refusals.
QUEUE_LIMIT = 200_000
JSON_HEADERS = {"Content-Type": "application/json"}
BODY = '{"amount":1250,"currency":"USD"}'


@dataclass(frozen=True)
class Platform:
    """A running stack and its users."""

    stack: Stack
    is_floor: bool = False

    def url(self, process: str) -> str:
        """Where a process listens."""
        return f"http://127.0.0.1:{self.stack.port + PORT_OFFSETS[process]}"

    def redis(self) -> store.Client:
        """A client of the stack's Redis."""
        return self.stack.redis()

    def bearers(self) -> list[dict[str, str]]:
        """Headers for one merchant per connection, valid for 30 s."""
        settings = TokenSettings.read(
            {"JWT_SECRET_FILE": str(self.stack.state / "jwt-secret"), "HTTP_PORT": "1"}
        )
        tokens = Tokens(settings)
        return [
            {"Authorization": f"Bearer {tokens.issue(user_id(n), username(n), enabled=True)}"}
            for n in range(CONNECTIONS)
        ]

    def send(self, process: str, request: Request) -> httpx.Response:
        """Sends one request."""
        return httpx.request(
            request.method,
            self.url(process) + request.path,
            headers=dict(request.headers),
            content=request.body,
            timeout=10,
        )

    def rest(self, process: str) -> None:
        """Stops one process; the supervisor does not restart it."""
        done = self.stack.compose("process", "stop", process)
        if done.returncode != 0:
            raise MeasureError(f"{process} could not be stopped: {done.stderr.strip()}")

    @contextlib.contextmanager
    def awake(self, process: str) -> Iterator[None]:
        """Runs one stopped process within the block."""
        done = self.stack.compose("process", "start", process)
        if done.returncode != 0:
            raise MeasureError(f"{process} could not be started: {done.stderr.strip()}")
        support.wait_until(partial(self.stack.healthy, process), seconds_max=30, what=process)
        try:
            yield
        finally:
            self.rest(process)

    def forget(self) -> None:
        """Empties Redis, so that no run affects the next."""
        with contextlib.closing(self.redis()) as client:
            client.flushall()


def username(number: int) -> str:
    """The name of a benchmark user."""
    return f"merchant-{number:05d}"


def user_id(number: int) -> int:
    """The password of a benchmark user."""
    return _FIRST_USER_ID + number


def login(number: int) -> Request:
    """The login request of a user."""
    body = json.dumps({"username": username(number), "password": PASSWORD})
    return Request("POST", "/auth/token", JSON_HEADERS, body)


def write_users(path: Path) -> None:
    """Users who share one hash; each is verified separately."""
    password_hash = hash_password(PASSWORD)
    users = [
        {"id": user_id(n), "username": username(n), "password_hash": password_hash}
        for n in range(USERS)
    ]
    path.write_text(json.dumps(users))
    path.chmod(0o600)


def floor_file(compose: str) -> str:
    """The stack's compose file with the apps of its HTTP services emptied.

    Raises:
        MeasureError: a service has an unknown command.
    """
    for service in EMPTIED:
        command = f"python -m services.{service}"
        if compose.count(command) != 1:
            raise MeasureError(f"{COMPOSE_FILE.name} does not start {service} as `{command}`")
        compose = compose.replace(command, f"python -m bench.empty {service}")
    return compose


@contextlib.contextmanager
def running(
    folder: Path, *, floor: bool = False, healthy: bool = True, **environ: str
) -> Iterator[Platform]:
    """A stack with logs, append-only file and validation as shipped; waits until it is healthy."""
    if not (folder / "users.json").exists():
        write_users(folder / "users.json")
    more = {
        "USERS_FILE": str(folder / "users.json"),
        "QUEUE_LIMIT": str(QUEUE_LIMIT),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "info",
        **environ,
    }
    if floor:
        path = folder / "floor.yaml"
        path.write_text(floor_file(COMPOSE_FILE.read_text()))
        more["PC_CONFIG_FILES"] = str(path)
    started = stacks.running(healthy=healthy, port=None, state=None, cwd=support.ROOT, **more)
    with _without_settings(), started as stack:
        yield Platform(stack, floor)


# Settings of the user's shell would replace the defaults.
_SETTINGS = ("WORKERS", "CONCURRENCY", "RELOAD", "THREADS", "FINISHED_DAYS", "DEADLETTER_DAYS")


@contextlib.contextmanager
def _without_settings() -> Iterator[None]:
    set_aside = {name: os.environ.pop(name) for name in _SETTINGS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(set_aside)
