"""Parts of the stack replaced by external ones: a Redis, a PSP, a service."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from devtools import debug, preflight, processes
from devtools.catalog import SERVICES
from devtools.settings import SETTINGS
from services.common import redis_client, store
from services.common.settings import masked
from tests import support
from tests.cluster import PASSWORD, certificate
from tests.stack.stack import Stack, running

KEY = "sk_test_of_another_account"


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis that requires verified TLS and a password."""
    folder, port = tmp_path_factory.mktemp("redis"), support.free_ports(1)
    made = certificate(folder)
    url = made.redis_url(port)
    with support.redis_server(folder, port, *made.redis_options(port), url=url):
        yield url


def test_external_redis_and_psp(tmp_path: Path, tls_redis: str) -> None:
    """They are reached by verified TLS with password and key; the stack's own are idle.

    `deadletters` in a shell without REDIS_URL reads that Redis, too.
    """
    with (
        support.service("psp_sandbox", tmp_path) as (psp, _process),
        running(REDIS_URL=tls_redis, PSP_URL=psp, PSP_API_KEY=KEY) as stack,
    ):
        assert stack.paid()["status"] == "captured"
        paid = support.http.get(f"{psp}/_sandbox/payment_intents").json()["data"]
        assert len(paid) == 1
        assert stack.process("psp-connector").environ()["PSP_API_KEY"] == KEY
        elsewhere = redis_client.connect(tls_redis, timeout_seconds=5)
        assert len(list(elsewhere.scan_iter("transaction:*"))) == 1
        letter = elsewhere.xadd(store.WHOLE.deadletters, {"transaction_id": "1", "reason": "x"})
        command = [sys.executable, "-m", "devtools.deadletters", "list"]
        shell = {"PATH": os.environ["PATH"], "PLATFORM_STATE": str(stack.state)}
        assert letter in support.call(command, shell).stdout
        with stack.redis() as own:
            assert own.dbsize() == 0
        assert stack.sandbox("GET", "payment_intents")["data"] == []
        logs = "".join(log.read_text() for log in (stack.state / "logs").iterdir())
        assert [secret for secret in (PASSWORD, quote_plus(PASSWORD), KEY) if secret in logs] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("127.0.0.1", "localhost"), "is unavailable: .*not valid for 'localhost'"),
        (("ssl_ca_certs=", "client_name=x#"), "is unavailable: .*unable to get local issuer cert"),
        ((quote_plus(PASSWORD), "wrong"), "refuses the services: invalid username-password pair"),
    ],
)
def test_a_redis_that_cannot_be_used_stops_the_start(
    tls_redis: str, change: tuple[str, str], reason: str
) -> None:
    """A wrong host name, authority or password is reported before the start."""
    changed = tls_redis.replace(*change)
    [fault] = preflight.unreachable_redis({"REDIS_URL": changed})
    assert fault.startswith(f"REDIS_URL='{masked(changed)}': Redis ")
    assert re.search(f"Redis {reason}", fault)
    assert quote_plus(PASSWORD) not in fault


def test_services_from_the_debugger(stack: Stack) -> None:
    """After `process stop`, services run as by .vscode/launch.json process payments."""
    [one] = json.loads((support.ROOT / ".vscode/launch.json").read_text())["configurations"]
    assert one["args"] == ["${input:service}"]
    _replace(stack, {name: [sys.executable, "-m", one["module"], name] for name in SETTINGS})


def test_a_debugged_service_has_the_settings_of_the_stack() -> None:
    """All but WORKERS; of the editor's environment it keeps what the debugger needs."""
    editor = {"PATH": "/editor", "SCRIPT_NAME": "x", "PYDEVD_USE_CYTHON": "NO", "PSP_ACCOUNT": "x"}
    with running(PLATFORM_CHECKOUT=str(support.ROOT), CONSOLE="on", JWT_SECRET="s" * 32) as stack:
        environ = processes.running_environ(stack.state)
        for name, settings in SETTINGS.items():
            debugged = debug.variables(name, stack.state, environ, editor)
            names = {*settings.variables(), "PATH", "SCRIPT_NAME"} - {"WORKERS"}
            same = stack.process(name).environ()
            assert {key: debugged.get(key, "") for key in names} == {
                key: same.get(key, "") for key in names
            }
            assert debugged["PYDEVD_USE_CYTHON"] == "NO"


def test_a_service_is_debugged_only_in_the_place_of_the_stacks(
    stack: Stack, tmp_path: Path
) -> None:
    """The message says what to do first: stop the service, or start the stack."""
    command = [sys.executable, "-m", "devtools.debug", "core-api"]
    for state, first in (
        (stack.state, "stop it first: platform process stop core-api"),
        (tmp_path, "start it first: platform up -D"),
    ):
        done = support.call(command, {**os.environ, "PLATFORM_STATE": str(state)})
        assert (done.returncode, done.stderr.strip().endswith(first)) == (1, True), done.stderr


def _replace(stack: Stack, programs: Mapping[str, Sequence[str]]) -> None:
    # As an editor has it: the state folder is the checkout's own there.
    environ = {"PATH": os.environ["PATH"], "PLATFORM_STATE": str(stack.state), "SCRIPT_NAME": "x"}
    with contextlib.ExitStack() as mine:
        for name in programs:
            assert stack.compose("process", "stop", name).returncode == 0
        for name, command in programs.items():
            assert not stack.healthy(name)
            output = stack.state / f"my-{name}.log"
            mine.enter_context(support.program(command, environ=environ, output=output))
        stack.wait_healthy()
        assert stack.paid()["status"] == "captured"
    for name in programs:
        assert stack.compose("process", "start", name).returncode == 0
    stack.wait_healthy()


def test_the_doctor_finds_a_healthy_stack_in_order(stack: Stack) -> None:
    """The doctor finds no fault, and names a setting that the running process does not have."""

    def doctor(**more: str) -> tuple[int, list[dict[str, str]]]:
        done = stack.doctor("--json", **more)
        return done.returncode, json.loads(done.stdout)["findings"]

    code, found = doctor()
    assert (code, [one for one in found if one["status"] == "fault"]) == (0, [])
    ports = [one for one in found if one["section"] == "ports" and one["value"].isdigit()]
    assert list(SERVICES) == [one["name"] for one in ports]
    assert all(one["note"].startswith("ours: ") for one in ports), ports
    health = {one["name"]: one["value"] for one in found if one["section"] == "health"}
    assert {name: "pass" for name in SERVICES if name != "redis"} == health
    assert [one for one in found if "other settings" in one["note"]] == []
    _, found = doctor(QUEUE_LIMIT="5")
    [note] = [one for one in found if "other settings" in one["note"]]
    assert (note["name"], note["status"]) == ("core-api", "note")
    assert note["note"].endswith(": QUEUE_LIMIT")
