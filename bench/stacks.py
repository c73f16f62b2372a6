"""The platform as it is shipped, and its floor: the same stack with the services' apps emptied."""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil

from bench.results import MeasureError
from devtools.catalog import SERVICES
from devtools.supervisor import Supervisor
from services.auth_api.passwords import hash_password
from services.common import store
from services.common.tokens import Tokens, TokenSettings
from tests import support
from tests.stack import stack as stacks
from tests.stack.stack import Stack

COMPOSE_FILE = support.ROOT / "process-compose.yaml"
EMPTIED = ("auth_api", "core_api")
PASSWORD = "password"  # noqa: S105  of users that exist for some minutes
USERS = 4_000
CONNECTIONS = 16
PAYMENT = {"amount": 1250, "currency": "USD"}
# The connector is stopped while requests are measured, so that its work does not count; the limit
# is high, so that an earlier run's backlog causes no refusals.
QUEUE_LIMIT = 200_000
_FIRST_USER_ID = 1000
_SUPERVISOR = "supervisor"
_FLUSHES_MAX = 50
_SETTLE_SECONDS = 0.1
# Values in the user's shell would replace the defaults.
_SETTINGS = ("WORKERS", "CONCURRENCY", "FINISHED_DAYS", "DEADLETTER_DAYS")


def running(
    folder: Path, *, floor: bool = False, healthy: bool = True, **more: str
) -> contextlib.AbstractContextManager[Stack]:
    """Runs a stack with logs, append-only file and validation as shipped; waits until healthy."""
    users = folder / "users.json"
    if not users.exists():
        _write_users(users)
    settings = dict.fromkeys(_SETTINGS, "") | {
        "USERS_FILE": str(users),
        "QUEUE_LIMIT": str(QUEUE_LIMIT),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "info",
        **more,
    }
    if floor:
        path = folder / "floor.yaml"
        path.write_text(floor_file(COMPOSE_FILE.read_text()))
        settings["PC_CONFIG_FILES"] = str(path)
    return stacks.running(healthy=healthy, port=None, state=None, cwd=support.ROOT, **settings)


def floor_file(compose: str) -> str:
    """The stack's compose file with the apps of its HTTP services emptied."""
    for service in EMPTIED:
        command = f"python -m services.{service}"
        if compose.count(command) != 1:
            raise MeasureError(f"{COMPOSE_FILE.name} does not start {service} as `{command}`")
        compose = compose.replace(command, f"python -m bench.empty {service}")
    return compose


def supervisor(stack: Stack) -> Supervisor:
    """A client of the stack's process-compose."""
    return Supervisor(stack.environ["PC_SOCKET_PATH"])


def url(stack: Stack, process: str) -> str:
    """The URL of a process, without a trailing slash."""
    return SERVICES[process].url(stack.port)


def flush(stack: Stack) -> None:
    """Empties Redis, so that no run affects the next; waits for requests still in the router."""
    with contextlib.closing(stack.redis()) as client:
        for _try in range(_FLUSHES_MAX):
            client.flushall()
            time.sleep(_SETTLE_SECONDS)
            if not client.xlen(store.WHOLE.queue):
                return
    raise MeasureError("payments are still being accepted")


def _write_users(path: Path) -> None:
    """Users who share one hash; each is verified separately."""
    password_hash = hash_password(PASSWORD)
    users = [
        {"id": _FIRST_USER_ID + n, "username": _username(n), "password_hash": password_hash}
        for n in range(USERS)
    ]
    path.write_text(json.dumps(users))
    path.chmod(0o600)


def _username(number: int) -> str:
    return f"merchant-{number:05d}"


def login(stack: Stack, number: int) -> httpx.Request:
    """The login request of a user."""
    body = {"username": _username(number), "password": PASSWORD}
    return httpx.Request("POST", f"{url(stack, 'router')}/auth/token", json=body)


def bearers(stack: Stack) -> list[dict[str, str]]:
    """Headers for one merchant per connection, valid for 30 s."""
    secret = {"JWT_SECRET_FILE": str(stack.state / "jwt-secret"), "HTTP_PORT": "1"}
    tokens = Tokens(TokenSettings.read(secret))
    issued = [
        tokens.issue(_FIRST_USER_ID + n, _username(n), enabled=True) for n in range(CONNECTIONS)
    ]
    return [{"Authorization": f"Bearer {token}"} for token in issued]


def payments(stack: Stack, process: str, path: str) -> list[httpx.Request]:
    """One payment of each merchant."""
    address = url(stack, process) + path
    return [
        httpx.Request("POST", address, headers=bearer, json=PAYMENT) for bearer in bearers(stack)
    ]


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """User and system time of each process of the stack so far, its workers included."""
    return _sums(stack, lambda process: sum(process.cpu_times()[:2]))


def pss_megabytes(stack: Stack) -> dict[str, float]:
    """Memory of each: shared pages are divided among their users (Linux only)."""
    return _sums(stack, lambda process: process.memory_full_info().pss / 1e6)


def _sums(stack: Stack, measure: Callable[[psutil.Process], float]) -> dict[str, float]:
    used: dict[str, float] = defaultdict(float)
    for name, process in _processes(stack):
        with contextlib.suppress(psutil.NoSuchProcess):
            used[name] += measure(process)
    return dict(used)


def _processes(stack: Stack) -> Iterator[tuple[str, psutil.Process]]:
    """The supervisor, and the others by the name of the process they belong to."""
    yield _SUPERVISOR, psutil.Process(stack.supervisor.pid)
    for state in stack.states():
        members = []
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if state.is_running:
                started = psutil.Process(state.pid)
                members = [started, *started.children(recursive=True)]
        for process in members:
            yield state.name, process
