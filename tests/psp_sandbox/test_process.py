"""The real process, used by the connector's client; killed, and started with bad settings."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.psp_connector.psp import Captured, Declined, Outcome, Refused, Transient
from tests.psp_sandbox.process import COMMAND, Process, running
from tests.support import call, free_ports, http, wait_until


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with running(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("pm_card_chargeDeclinedInsufficientFunds", Declined("insufficient_funds")),
        ("pm_none", Refused("HTTP 400 resource_missing")),
        ("pm_sandbox_rate_limited", Transient("HTTP 429", 1)),
        ("pm_sandbox_error_500", Transient("HTTP 500")),
    ],
)
def test_outcomes(sandbox: Process, method: str, expected: Outcome) -> None:
    """The connector's Stripe library interprets each error correctly."""
    outcome = sandbox.pay(method, method)
    if isinstance(outcome, Declined):
        outcome = Declined(outcome.code)
    assert outcome == expected


def test_a_key_is_for_one_payment(sandbox: Process) -> None:
    """The same parameters get the same payment, others an error."""
    first = sandbox.pay("k")
    assert isinstance(first, Captured)
    assert sandbox.pay("k") == first
    assert sandbox.pay("k", "pm_card_amex") == Refused("HTTP 400 idempotency_error")


def hold(sandbox: Process, key: str) -> socket.socket:
    """A connection with a payment request that gets no response."""
    form = (
        "amount=1&currency=usd&confirm=true&payment_method=pm_sandbox_timeout"
        "&automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never"
    )
    head = (
        "POST /v1/payment_intents HTTP/1.1\r\nHost: localhost\r\n"
        "Authorization: Bearer sk_test_x\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Idempotency-Key: {key}\r\nContent-Length: {len(form)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", sandbox.port), timeout=10)
    connection.sendall(head.encode() + form.encode())
    return connection


def test_held_requests_do_not_block_others(sandbox: Process) -> None:
    """Beyond the limit of held requests the next is refused, and healthy ones continue.

    When the clients hang up, their places are free again long before the time is over.
    """
    held = [hold(sandbox, f"held-{n}") for n in range(60)]
    refused = wait_until(lambda: [c for c in held if _answered(c)], what="a refused request")
    assert b"503" in refused[0].recv(15)
    assert sandbox.is_healthy()
    assert isinstance(sandbox.pay("beside-held"), Captured)
    for connection in held:
        connection.close()
    slow = "pm_sandbox_slow"
    wait_until(lambda: isinstance(sandbox.pay("place", slow), Captured), seconds_max=15)


def _answered(connection: socket.socket) -> bool:
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return len(connection.recv(15, socket.MSG_PEEK)) == 15
    return False


def test_dropped_connection(sandbox: Process) -> None:
    """The connection closes without a response, and the payment is captured."""
    http.put(f"{sandbox.url}/_sandbox/faults", json={"down": "connection_closed_after_capture"})
    assert sandbox.pay("dropped") == Transient("no response")
    http.delete(f"{sandbox.url}/_sandbox/faults")
    assert isinstance(sandbox.pay("dropped"), Captured)
    assert sandbox.shown()["data"][0]["requests"] == 2


def test_log(sandbox: Process) -> None:
    """The log has the transaction of each request, and never the API key."""
    sandbox.pay("logged")
    lines = wait_until(
        lambda: [line for line in sandbox.output.read_text().splitlines() if "logged" in line],
        what="the log line",
    )
    assert '"transaction_id": "logged"' in lines[0]
    assert "sk_test" not in sandbox.output.read_text()


def test_kill_after_capture(tmp_path: Path) -> None:
    """After kill -9 of every process, the same key gets the same payment from a new one."""
    database, port = str(tmp_path / "sandbox.sqlite"), free_ports(1)
    with running(tmp_path, port, database) as sandbox:
        before = [sandbox.pay(f"k{n}") for n in range(20)]
        os.killpg(sandbox.process.pid, signal.SIGKILL)
        sandbox.process.wait(10)
    with running(tmp_path, port, database) as sandbox:
        assert before == [sandbox.pay(f"k{n}") for n in range(20)]
        assert sandbox.shown()["summary"]["captured"] == 20


def test_two_processes_charge_a_key_once(tmp_path: Path) -> None:
    """An orphan of a killed master and its successor charge one key once.

    The slow payment method has both past the look at the key before either charges.
    """
    database = str(tmp_path / "sandbox.sqlite")
    with (
        running(tmp_path / "orphan", database=database) as orphan,
        running(tmp_path / "successor", database=database) as successor,
        ThreadPoolExecutor(16) as pool,
    ):
        asked = [
            pool.submit(one.pay, f"raced-{n}", "pm_sandbox_slow")
            for n in range(8)
            for one in (orphan, successor)
        ]
        outcomes = [future.result(20) for future in asked]
        summary = orphan.shown()["summary"]
    assert outcomes[::2] == outcomes[1::2]
    assert all(isinstance(outcome, Captured) for outcome in outcomes)
    assert (summary["captured"], summary["requests"]) == (8, 16)


@pytest.mark.parametrize(
    ("database", "reason"),
    [("/nowhere/x.sqlite", "an existing folder"), ("{0}", "not a database")],
)
def test_wrong_database(tmp_path: Path, database: str, reason: str) -> None:
    """An unusable database stops the start with the variable's name."""
    (tmp_path / "file").write_text("no database at all, and certainly none of SQLite's")
    environ = os.environ | {
        "HTTP_PORT": "1",
        "SANDBOX_DATABASE": database.format(tmp_path / "file"),
        "WORKERS": "4",
    }
    done = call(COMMAND, environ)
    assert done.returncode == 78
    assert "SANDBOX_DATABASE" in done.stderr
    assert reason in done.stderr
