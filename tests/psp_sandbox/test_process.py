"""The real process, driven by Stripe's own library; killed, and started wrongly."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import stripe

from tests.support import ROOT, free_ports, http, program, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stripe.params import PaymentIntentCreateParams

COMMAND = [sys.executable, "-m", "services.psp_sandbox"]


class Process:
    """A running sandbox."""

    def __init__(self, port: int, output: Path, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.output = output
        self.process = process
        self.client = stripe.StripeClient(
            "sk_test_tests",
            base_addresses={"api": self.url},
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=5),
        )

    def pay(
        self, key: str, method: str = "pm_card_visa", amount: int = 1250
    ) -> stripe.PaymentIntent:
        params: PaymentIntentCreateParams = {
            "amount": amount,
            "currency": "usd",
            "confirm": True,
            "payment_method": method,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": {"transaction_id": key},
        }
        return self.client.v1.payment_intents.create(params, {"idempotency_key": key})

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def raw(self, form: str, key: str) -> socket.socket:
        """A connection on which a payment was asked for, and nothing read yet."""
        head = (
            "POST /v1/payment_intents HTTP/1.1\r\nHost: localhost\r\n"
            "Authorization: Bearer sk_test_x\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Idempotency-Key: {key}\r\nContent-Length: {len(form)}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.sendall(head.encode() + form.encode())
        return connection


@contextlib.contextmanager
def running(folder: Path, port: int, database: str = "") -> Iterator[Process]:
    environ = os.environ | {
        "HTTP_PORT": str(port),
        "SANDBOX_DATABASE": database,
        "LOG_FORMAT": "json",
    }
    folder.mkdir(exist_ok=True)
    output = folder / "log"
    with program(COMMAND, environ=environ, output=output) as process:
        sandbox = Process(port, output, process)
        wait_until(sandbox.is_healthy, what="the sandbox")
        yield sandbox


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("sandbox")
    with running(folder, free_ports(1)) as sandbox:
        yield sandbox


def test_success(sandbox: Process) -> None:
    """Stripe's library reads a capture and the balance."""
    intent = sandbox.pay("success")
    assert (intent.status, intent.amount_received) == ("succeeded", 1250)
    assert intent.metadata["transaction_id"] == "success"
    assert sandbox.client.v1.balance.retrieve().available[0].currency == "usd"


def test_decline(sandbox: Process) -> None:
    """Stripe's library raises its own error for a decline, with the decline code."""
    with pytest.raises(stripe.CardError) as caught:
        sandbox.pay("decline", "pm_card_chargeDeclinedInsufficientFunds")
    assert caught.value.error is not None
    assert caught.value.code == "card_declined"
    assert caught.value.error.decline_code == "insufficient_funds"


def test_idempotency_error(sandbox: Process) -> None:
    """The library raises its own error for a key that is used for another payment."""
    sandbox.pay("other")
    with pytest.raises(stripe.IdempotencyError):
        sandbox.pay("other", amount=1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("pm_none", stripe.InvalidRequestError),
        ("pm_sandbox_rate_limited", stripe.RateLimitError),
        ("pm_sandbox_error_500", stripe.APIError),
    ],
)
def test_errors(sandbox: Process, method: str, expected: type[stripe.StripeError]) -> None:
    """The library knows each error for what it is."""
    with pytest.raises(expected):
        sandbox.pay(f"errors-{method}", method)


def test_held_requests_do_not_block_others(sandbox: Process) -> None:
    """With more requests held than may be, the next is refused, and the healthy ones go on.

    When the clients hang up, their places are free again long before the time is over.
    """
    form = (
        "amount=1&currency=usd&confirm=true&payment_method=pm_sandbox_timeout"
        "&automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never"
    )
    held = [sandbox.raw(form, f"held-{n}") for n in range(60)]
    refused = wait_until(lambda: [c for c in held if _answered(c)], what="a refused request")
    assert b"503" in refused[0].recv(15)
    assert sandbox.is_healthy()
    assert sandbox.pay("beside-held").status == "succeeded"
    for connection in held:
        connection.close()
    wait_until(lambda: _is_slow_possible(sandbox), what="a free place")


def _answered(connection: socket.socket) -> bool:
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return len(connection.recv(15, socket.MSG_PEEK)) == 15
    return False


def _is_slow_possible(sandbox: Process) -> bool:
    try:
        return sandbox.pay("place", "pm_sandbox_slow").status == "succeeded"
    except stripe.APIError:
        return False


def test_dropped_connection(sandbox: Process) -> None:
    """A connection that is closed instead of answered is a connection error to the library."""
    request = urllib.request.Request(
        f"{sandbox.url}/_sandbox/faults",
        method="PUT",
        headers={"Content-Type": "application/json"},
        data=b'{"down": "connection_closed_after_capture"}',
    )
    urllib.request.urlopen(request, timeout=5).close()
    with pytest.raises(stripe.APIConnectionError):
        sandbox.pay("dropped")
    request.method = "DELETE"
    urllib.request.urlopen(request, timeout=5).close()
    assert sandbox.pay("dropped").last_response.headers["idempotent-replayed"] == "true"  # type: ignore[union-attr]


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
        before = [sandbox.pay(f"k{n}").id for n in range(20)]
        os.killpg(sandbox.process.pid, signal.SIGKILL)
        sandbox.process.wait(10)
    with running(tmp_path, port, database) as sandbox:
        assert before == [sandbox.pay(f"k{n}").id for n in range(20)]
        assert sandbox.client.v1.balance.retrieve().available[0].amount == 20 * 1250


def test_two_processes_charge_a_key_once(tmp_path: Path) -> None:
    """An orphan of a killed master and its successor, with one key at once: one payment.

    The slow payment method has both past the look at the key before either charges.
    """
    database = str(tmp_path / "sandbox.sqlite")
    keys = [f"raced-{n}" for n in range(8)]
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(running(folder, free_ports(1), database))
            for folder in (tmp_path / "orphan", tmp_path / "successor")
        ]
        with ThreadPoolExecutor(2 * len(keys)) as pool:
            requested = [
                pool.submit(one.pay, key, "pm_sandbox_slow") for key in keys for one in both
            ]
            answers = [future.result(20) for future in requested]
        listed = http.get(f"{both[0].url}/_sandbox/payment_intents").json()
    pairs = list(zip(answers[::2], answers[1::2], strict=True))
    assert [a.id for a, _ in pairs] == [b.id for _, b in pairs]
    assert len(keys) == len({a.id for a, _ in pairs})
    assert {key: {"requests": 2, "captured": 1} for key in keys} == listed["keys"]
    responses = [response.last_response for response in answers]
    replays = [one.headers.get("Idempotent-Replayed") for one in responses if one is not None]
    assert len(keys) == replays.count("true")


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
    done = subprocess.run(
        COMMAND, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 78
    assert "SANDBOX_DATABASE" in done.stderr
    assert reason in done.stderr
