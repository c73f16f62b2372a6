"""A line is changed in a copy of the checkout, and the running stack serves it."""

from __future__ import annotations

import contextlib
import shutil
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from services.auth_api import userfile
from tests import support
from tests.stack.stack import START_SECONDS_MAX, Stack, left_of, running
from tests.test_reload import by_rename, code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS_MAX = 30  # one is the aim; the machine of a check is shared and slow at times


class Checkout:
    """The copy, and the stack that runs from it."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        self.stack = stack

    def save(self, name: str, old: str, new: str) -> None:
        """Replaces a text in a file under services/."""
        path = self.folder / "services" / name
        text = path.read_text()
        assert old in text, name
        by_rename(path, text.replace(old, new))

    def wait_for(self, path: str, text: str) -> None:
        """Waits until the router answers with that text."""

        def there() -> bool:
            # On a connection of its own: the router closes idle ones when it reads its file again.
            with contextlib.suppress(httpx.TransportError):
                return text in httpx.get(f"{self.stack.http.base_url}{path}").text
            return False

        support.wait_until(there, seconds_max=SECONDS_MAX, what=text)

    def wait_for_log(self, name: str, text: str, times: int = 1) -> None:
        """Waits until a process has logged that so often."""
        support.wait_until(
            lambda: self.stack.log(name).count(text) >= times, seconds_max=SECONDS_MAX, what=text
        )

    def pids(self) -> dict[str, int]:
        """The processes as the supervisor knows them."""
        names = ("auth-api", "core-api", "psp-sandbox", "psp-connector", "router", "redis")
        return {name: self.stack.process(name).pid for name in names}


@contextlib.contextmanager
def running_from(folder: Path, *, healthy: bool = True, users_file: str = "") -> Iterator[Checkout]:
    """A stack that is run from a copy of the checkout, as a developer has it."""
    with running(
        healthy=healthy,
        RELOAD="",  # by default it is on in a checkout
        PLATFORM_CODE=str(folder),
        PC_CONFIG_FILES=str(folder / "process-compose.yaml"),
        PYTHONPATH=str(folder),
        USERS_FILE=users_file,
    ) as stack:
        yield Checkout(folder, stack)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """One for all tests, each of which leaves it whole."""
    folder = code(tmp_path_factory.mktemp("checkout"))
    shutil.copy(folder / "services/auth_api/users.json", folder / "users.json")
    with running_from(folder, users_file=str(folder / "users.json")) as checkout:
        before = checkout.pids()
        yield checkout
        assert before == checkout.pids(), "a process was started anew by the supervisor"


@pytest.mark.parametrize(
    ("service", "title", "path"),
    [
        ("auth_api", "Auth API", "/auth/openapi.json"),
        ("core_api", "Core API", "/transactions/openapi.json"),
    ],
)
def test_saved_python_is_served(checkout: Checkout, service: str, title: str, path: str) -> None:
    """Through the router, without a failed request meanwhile: payments go on."""
    stop = threading.Event()
    statuses: set[int] = set()

    def pay() -> None:
        while not stop.is_set():
            statuses.add(checkout.stack.pay().status_code)

    traffic = threading.Thread(target=pay)
    traffic.start()
    try:
        checkout.save(f"{service}/openapi.py", title, "Another API")
        checkout.wait_for(path, "Another API")
        checkout.save(f"{service}/openapi.py", "Another API", title)
        checkout.wait_for(path, title)
    finally:
        stop.set()
        traffic.join(SECONDS_MAX)
    assert {202} == statuses


def test_a_shared_module_reaches_every_service(checkout: Checkout) -> None:
    """All four take up a change beside the folders, the sandbox too."""
    names = ("auth-api", "core-api", "psp-sandbox", "psp-connector")
    before = {name: checkout.stack.log(name).count('"services/clock.py"') for name in names}
    checkout.save("clock.py", "from __future__", "# changed\nfrom __future__")
    for name in names:
        checkout.wait_for_log(name, '"services/clock.py"', before[name] + 1)
        ready = "working" if name == "psp-connector" else "listening"
        checkout.wait_for_log(name, f'"event": "{ready}"', 2)
    checkout.stack.wait_healthy()


def test_the_connector_finishes_the_work_in_hand(checkout: Checkout) -> None:
    """A payment that is being charged when the code changes is charged once, by the old code."""
    stack = checkout.stack
    slow = stack.pay(payment_method="pm_sandbox_slow").json()["id"]
    support.wait_until(
        lambda: (
            stack.http.get(f"/transactions/{slow}", headers=stack.bearer()).json()["status"]
            == "processing"
        ),
        what="the charge to begin",
    )
    checkout.save("psp_connector/__main__.py", '_log.info("working"', '_log.info("at work"')
    quick = stack.pay().json()["id"]
    assert ("captured", 1) == tuple(stack.ended(slow)[key] for key in ("status", "attempts"))
    checkout.wait_for_log("psp-connector", '"event": "at work"')
    assert ("captured", 1) == tuple(stack.ended(quick)[key] for key in ("status", "attempts"))
    assert '"left_to_others": 1' not in stack.log("psp-connector")


def test_a_connector_that_breaks_at_its_start(checkout: Checkout) -> None:
    """The traceback is in its log; payments wait for the next save, and are captured."""
    name = "psp_connector/breaker.py"
    checkout.save(name, "import threading", "import threading_")
    checkout.wait_for_log("psp-connector", "No module named 'threading_'")
    waiting = checkout.stack.pay().json()["id"]
    checkout.save(name, "import threading_", "import threading")
    assert "captured" == checkout.stack.ended(waiting)["status"]


def test_a_syntax_error_keeps_the_stack_up(checkout: Checkout) -> None:
    """The old code goes on, and the service's own log names file and line."""
    checkout.save("core_api/resources.py", "class ", "class class ")
    checkout.wait_for_log("core-api", "code not reloaded, the old goes on")
    assert '"file": "services/core_api/resources.py", "line": ' in checkout.stack.log("core-api")
    assert "captured" == checkout.stack.ended(checkout.stack.pay().json()["id"])["status"]
    checkout.save("core_api/resources.py", "class class ", "class ")


def test_a_saved_caddyfile_is_served(checkout: Checkout) -> None:
    """A broken one is told in the router's log and the old one stays; the next is served again."""
    name = "router/Caddyfile"
    checkout.save(name, '{"status":"pass"}', '{"status":"saved"}')
    checkout.wait_for("/health", "saved")
    checkout.save(name, "protocols h1", "protocolls h1")
    checkout.wait_for_log("router", "unrecognized servers option 'protocolls'")
    assert "saved" in checkout.stack.http.get("/health").text
    checkout.save(name, "protocolls h1", "protocols h1")
    checkout.save(name, '{"status":"saved"}', '{"status":"pass"}')
    checkout.wait_for("/health", "pass")


def test_a_request_outlives_a_saved_caddyfile(checkout: Checkout) -> None:
    """One that is on its way when the router reads its file again gets its answer."""
    http = checkout.stack.http
    body = b'{"username": "alice", "password": "password"}'

    def slowly() -> Iterator[bytes]:
        yield body[:20]
        checkout.save("router/Caddyfile", '{"status":"pass"}', '{"status":"saved"}')
        # Not through `http`: that would need a second connection of it.
        checkout.wait_for_log("router", "successfully reloaded config from file", reloads + 1)
        yield body[20:]

    reloads = checkout.stack.log("router").count("successfully reloaded config from file")
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    answer = http.post("/auth/token", content=slowly(), headers=headers)
    assert 200 == answer.status_code, answer.text
    checkout.save("router/Caddyfile", '{"status":"saved"}', '{"status":"pass"}')
    checkout.wait_for("/health", "pass")


def test_saved_users_may_log_in(checkout: Checkout) -> None:
    """USERS_FILE counts from the next login on, saved as editors do; a broken one does not."""
    path = checkout.folder / "users.json"
    text = path.read_text()
    body = {"username": "dora", "password": "password"}
    assert 401 == checkout.stack.http.post("/auth/token", json=body).status_code
    alice = userfile.load(path)[0]
    userfile.save(
        path, [*userfile.load(path), alice.model_copy(update={"id": 4, "username": "dora"})]
    )
    assert 200 == checkout.stack.http.post("/auth/token", json=body).status_code
    by_rename(path, "[")
    assert 200 == checkout.stack.http.post("/auth/token", json=body).status_code
    checkout.wait_for_log("auth-api", "users not reloaded, the last good ones stay")
    by_rename(path, text)
    assert 401 == checkout.stack.http.post("/auth/token", json=body).status_code


def test_a_syntax_error_at_the_start(tmp_path: Path) -> None:
    """The stack stays up and waits for it to be mended; then it becomes healthy."""
    folder = code(tmp_path / "code")
    path = folder / "services/core_api/resources.py"
    good = path.read_text()
    path.write_text("def\n")
    with running_from(folder, healthy=False) as checkout:
        stack = checkout.stack
        log = stack.state / "logs/core-api.log"
        support.wait_until(log.exists, seconds_max=START_SECONDS_MAX, what="core-api's log")
        checkout.wait_for_log("core-api", "SyntaxError: ")
        assert stack.supervisor.poll() is None
        path.write_text(good)
        stack.wait_healthy()
        assert "captured" == stack.ended(stack.pay().json()["id"])["status"]


def test_reload_0_is_off() -> None:
    """As in the other tests and in benchmarks: nobody looks at the files."""
    with running() as stack:
        started = [" ".join(process.cmdline()) for process in left_of(stack.state)]
        assert [] == [command for command in started if "router/reload.sh" in command]
        threads = {name: stack.process(name).num_threads() for name in ("auth-api", "core-api")}
        assert {"auth-api": 1, "core-api": 1} == threads
