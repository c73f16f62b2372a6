"""A running stack serves changes in a copy of the checkout."""

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from devtools.processes import is_gone
from services.common import locks
from tests import support
from tests.stack.stack import Stack, left_of, processes_of, running

SECONDS_MAX = 30  # one is the aim; the machine of a check is shared and slow at times


class Checkout:
    """The copy, and the stack that runs from it."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        self.stack = stack

    def save(self, name: str, old: str, new: str) -> None:
        """Replaces a text below services/ as vim, PyCharm and git do: by a new file."""
        path = self.folder / "services" / name
        text = path.read_text()
        assert old in text, name
        saved = path.with_name(path.name + "___jb_tmp___")
        saved.write_text(text.replace(old, new))
        saved.replace(path)

    def wait_for(self, path: str, text: str) -> None:
        """Waits until the router's response has that text."""

        def there() -> bool:
            # On a connection of its own: the router closes idle ones when it reads its file again.
            with contextlib.suppress(httpx.TransportError):
                return text in support.http.get(f"{self.stack.http.base_url}{path}").text
            return False

        support.wait_until(there, seconds_max=SECONDS_MAX, what=text)


@contextlib.contextmanager
def running_from(folder: Path, *, healthy: bool = True) -> Iterator[Checkout]:
    """A stack run from a copy of the checkout, as developers do."""
    with running(
        healthy=healthy,
        RELOAD="",  # by default it is on in a checkout
        PLATFORM_CODE=str(folder),
        PC_CONFIG_FILES=str(folder / "process-compose.yaml"),
        PYTHONPATH=str(folder),
    ) as stack:
        yield Checkout(folder, stack)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """One copy for all tests, each of which restores it."""
    folder = support.copied(tmp_path_factory.mktemp("checkout"))
    with running_from(folder) as checkout:
        checkout.stack.wait_for_log("reload", " watching")
        yield checkout


def test_saved_python_is_served(checkout: Checkout) -> None:
    """New processes serve it; old ones are gone within 5 s, and payments continue."""
    old: list[psutil.Process] = [checkout.stack.process("auth-api")]
    old += old[0].children(recursive=True)
    stop, bearer = threading.Event(), checkout.stack.bearer()

    def pay() -> set[int]:
        post = partial(checkout.stack.http.post, "/transactions", headers=bearer)
        body = {"amount": 1250, "currency": "USD"}
        return {post(json=body).status_code for _ in iter(stop.is_set, True)}

    with ThreadPoolExecutor(1) as pool:
        traffic = pool.submit(pay)
        try:
            checkout.save("auth_api/app.py", '"Auth API"', '"Another API"')
            support.wait_until(
                lambda: all(map(is_gone, old)), seconds_max=5, what="the old ones to end"
            )
            checkout.wait_for("/auth/openapi.json", "Another API")
        finally:
            stop.set()
        assert traffic.result(SECONDS_MAX) == {202}
    checkout.save("auth_api/app.py", "Another API", "Auth API")
    checkout.wait_for("/auth/openapi.json", "Auth API")


def test_a_shared_module_restarts_every_service(checkout: Checkout) -> None:
    """The four Python services restart, router and Redis do not.

    The doctor finds no fault, although a service that is being restarted does not listen.
    """
    names = ("auth-api", "core-api", "psp-sandbox", "psp-connector")
    before = {name: checkout.stack.process(name) for name in (*names, "router", "redis")}
    checkout.save("common/clock.py", "import time", "# changed\nimport time")
    support.wait_until(
        lambda: any(state.is_stopping for state in checkout.stack.states()), what="the first stop"
    )
    found = json.loads(checkout.stack.doctor("--json").stdout)["findings"]
    assert [one for one in found if one["status"] == "fault"] == []
    for name in names:
        restarted = partial(checkout.stack.restarted, name, before[name])
        support.wait_until(restarted, seconds_max=SECONDS_MAX, what=f"another {name}")
    checkout.stack.wait_healthy()
    for name in ("router", "redis"):
        assert checkout.stack.process(name) == before[name]


def test_a_save_and_a_restart_at_once_leave_one_process(checkout: Checkout) -> None:
    """Two would share a name: one keeps the port, perhaps with the old code."""
    stack = checkout.stack
    checkout.save("auth_api/settings.py", '"""', '"""')
    assert stack.platform("process", "restart", "auth-api").stdout == "Process auth-api restarted\n"
    stack.wait_for_log("reload", 'process=auth-api files="[\\"auth_api/settings.py')
    stack.wait_healthy()
    started = [one for one in processes_of(stack.state) if one.ppid() == stack.supervisor.pid]
    names = [one.environ()["PC_PROC_NAME"] for one in started]
    assert names.count("auth-api") == 1
    assert "Address already in use" not in stack.log("auth-api")


def test_a_service_that_ended_without_an_error_is_started(checkout: Checkout) -> None:
    """As after an empty file was saved: it was not stopped by hand."""
    path = checkout.folder / "services/core_api/__main__.py"
    good = path.read_text()
    path.write_text("")
    support.wait_until(
        lambda: not checkout.stack.healthy("core-api"), seconds_max=SECONDS_MAX, what="its end"
    )
    path.write_text(good)
    checkout.stack.wait_healthy()


def test_a_process_stopped_by_hand_stays_stopped(checkout: Checkout) -> None:
    """Saving does not start a second copy of a service run in a debugger."""
    assert checkout.stack.compose("process", "stop", "psp-sandbox").returncode == 0
    checkout.save("psp_sandbox/app.py", "import sqlite3", "# changed\nimport sqlite3")
    checkout.stack.wait_for_log("reload", "not restarted: stopped by hand")
    assert not checkout.stack.healthy("psp-sandbox")
    assert checkout.stack.compose("process", "start", "psp-sandbox").returncode == 0
    checkout.stack.wait_healthy()


def call_in_flight(stack: Stack, payment_method: str) -> str:
    """Posts a payment and waits until it is being charged; returns its id."""
    payment: str = stack.pay(payment_method=payment_method).json()["id"]
    path, bearer = f"/transactions/{payment}", stack.bearer()
    support.wait_until(
        lambda: stack.http.get(path, headers=bearer).json()["status"] == "processing",
        what="the charge to begin",
    )
    return payment


def statuses(stack: Stack, service: str) -> list[str]:
    """Of all its replicas."""
    return [state.status for state in stack.states() if state.service == service]


@pytest.mark.parametrize("how", ["Ctrl-C at its command", "reload ends", "scale", "stop by hand"])
def test_a_restart_that_is_interrupted_leaves_nothing_stopped(checkout: Checkout, how: str) -> None:
    """The connector takes seconds to stop while a call is in flight; only a stop by hand stays."""
    stack, name = checkout.stack, "psp-connector"
    call_in_flight(stack, "pm_sandbox_slow")
    before, command = stack.process(name), None
    if how == "Ctrl-C at its command":
        command = subprocess.Popen(
            ["process-compose", "process", "restart", name], env=stack.environ
        )
    else:
        checkout.save("psp_connector/backoff.py", "import random", "import random  # saved")
    support.wait_until(lambda: statuses(stack, name) == ["Terminating"], what="its stop")
    if command:
        command.send_signal(signal.SIGINT)
        assert command.wait(SECONDS_MAX) == 0
    if how == "reload ends":
        stack.restart_reload()
    elif how == "scale":
        assert stack.compose("process", "scale", name, "2").returncode == 0
        assert stack.compose("process", "scale", name, "1").returncode == 0
    elif how == "stop by hand":
        assert stack.compose("process", "stop", name).returncode == 0
        assert statuses(stack, name) == ["Completed"]
        assert stack.compose("process", "start", name).returncode == 0
    stack.wait_healthy()
    assert stack.process(name) != before
    assert stack.ended(stack.pay().json()["id"])["status"] == "captured"


def is_changing(stack: Stack) -> bool:
    """Whether a command that excludes restarts is under way."""
    with Path(stack.environ["PC_SOCKET_PATH"] + "-changes.lock").open() as file:
        return not locks.take(file.fileno(), 0, is_shared=True)


def test_a_save_while_connectors_are_scaled_down(checkout: Checkout) -> None:
    """Its restart waits, also after Ctrl-C, because the name of the one that stays changes."""
    stack, name = checkout.stack, "psp-connector"
    assert stack.compose("process", "scale", name, "2").returncode == 0
    support.wait_until(
        lambda: [state.is_ready for state in stack.states() if state.service == name] == [True] * 2,
        what="two connectors",
    )
    for _ in range(4):
        call_in_flight(stack, "pm_sandbox_slow")
    command = ["process-compose", "process", "scale", f"{name}-0", "1"]
    with subprocess.Popen(command, env=stack.environ) as scale:
        support.wait_until(lambda: is_changing(stack), what="the begin of scaling")
        time.sleep(0.5)  # until it is process-compose
        scale.send_signal(signal.SIGINT)
        checkout.save("psp_connector/backoff.py", "import random", 'import random\n\nprint("v=2")')
        assert scale.wait(SECONDS_MAX) == 0
    stack.wait_for_log(name, "v=2")
    support.wait_until(lambda: statuses(stack, name) == ["Running"], what="one connector")
    assert stack.ended(stack.pay().json()["id"])["status"] == "captured"


def test_the_connector_finishes_calls_in_flight(checkout: Checkout) -> None:
    """A payment in flight during a change is charged once, by the old code."""
    stack = checkout.stack
    slow = call_in_flight(stack, "pm_sandbox_slow")
    checkout.save("psp_connector/backoff.py", "import random", 'import random\n\nprint("code=new")')
    quick = stack.pay().json()["id"]
    assert tuple(stack.ended(slow)[key] for key in ("status", "attempts")) == ("captured", 1)
    checkout.stack.wait_for_log("psp-connector", "code=new")
    assert tuple(stack.ended(quick)[key] for key in ("status", "attempts")) == ("captured", 1)
    assert "unfinished=1" not in stack.log("psp-connector")


def test_a_syntax_error_keeps_the_stack_up(checkout: Checkout) -> None:
    """The service's log names file and line; others continue, and the next save repairs it."""
    checkout.save("core_api/resources.py", "class ", "class class ")
    checkout.stack.wait_for_log("core-api", "SyntaxError: ")
    assert "services/core_api/resources.py" in checkout.stack.log("core-api")
    assert checkout.stack.healthy("auth-api")
    checkout.save("core_api/resources.py", "class class ", "class ")
    checkout.stack.wait_healthy()
    assert checkout.stack.paid()["status"] == "captured"


def test_a_saved_caddyfile_is_served(checkout: Checkout) -> None:
    """A request in flight gets its response; an invalid file is logged, the previous one kept."""
    name = "router/Caddyfile"
    body = b'{"username": "alice", "password": "password"}'

    def slowly() -> Iterator[bytes]:
        yield body[:20]
        checkout.save(name, '{"status":"pass"}', '{"status":"saved"}')
        checkout.wait_for("/health", "saved")
        yield body[20:]

    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    response = checkout.stack.http.post("/auth/token", content=slowly(), headers=headers)
    assert response.status_code == 200, response.text
    checkout.save(name, "protocols h1", "protocolls h1")
    checkout.stack.wait_for_log("reload", "unrecognized servers option 'protocolls'")
    assert "saved" in checkout.stack.http.get("/health").text
    checkout.save(name, "protocolls h1", "protocols h1")
    checkout.save(name, '{"status":"saved"}', '{"status":"pass"}')
    checkout.wait_for("/health", "pass")


def test_a_stack_that_starts_with_a_syntax_error(tmp_path: Path) -> None:
    """It waits for the repair, even before `reload` watches; `down` then leaves nothing."""
    folder = support.copied(tmp_path / "code")
    path = folder / "services/core_api/resources.py"
    good = path.read_text()
    path.write_text("def\n")
    with running_from(folder, healthy=False) as checkout:
        stack = checkout.stack
        checkout.stack.wait_for_log("core-api", "SyntaxError: ")
        assert stack.supervisor.poll() is None
        path.write_text(good)
        stack.wait_healthy()
        checkout.save("common/clock.py", "import time", "# changed\nimport time")
        checkout.stack.wait_for_log("reload", " restarting")
        done = stack.platform("down")
        assert (done.returncode, "left behind" in done.stdout) == (0, False)
        assert left_of(stack.state) == []


def test_reload_0_is_off(stack: Stack) -> None:
    """Nothing watches the files, as in other tests and benchmarks."""
    stack.wait_for_log("reload", "reload disabled")
    reload = {state.name: state for state in stack.states()}["reload"]
    assert not reload.has_failed
