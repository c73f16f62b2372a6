"""The real process, used by the connector's client, and started with bad settings."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from services.psp_connector.psp import Captured, Charge, Outcome, Transient
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import StripePsp
from tests.psp_sandbox.sandbox import AUTH, PAYMENT
from tests.support import call, http, service, wait_until


class Process:
    """A running sandbox, and the connector's client of it."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log
        environ = {"HTTP_PORT": "1", "REDIS_URL": "redis://127.0.0.1:1", "PSP_URL": url}
        self._psp = StripePsp(ConnectorSettings.read(environ))

    def pay(self, key: str, method: str = "pm_card_visa") -> Outcome:
        return self._psp.charge(Charge(key, "r", 1250, "USD", method))

    def shown(self) -> Any:
        return http.get(f"{self.url}/_sandbox/payment_intents").json()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("sandbox")
    with service("psp_sandbox", folder, LOG_FORMAT="json") as (url, _process):
        yield Process(url, folder / "log")


def test_a_key_is_for_one_payment(sandbox: Process) -> None:
    """The same parameters get the same payment, others an error."""
    first = sandbox.pay("k")
    assert isinstance(first, Captured)
    assert sandbox.pay("k") == first
    assert sandbox.pay("k", "pm_card_amex") == Transient("HTTP 400 idempotency_error")


def hold(sandbox: Process, key: str) -> socket.socket:
    """A connection with a payment request that gets no response."""
    connection = HTTPConnection(sandbox.url.removeprefix("http://"), timeout=10)
    form = urlencode(PAYMENT | {"payment_method": "pm_sandbox_timeout"})
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    headers = {**AUTH, **kind, "Idempotency-Key": key}
    connection.request("POST", "/v1/payment_intents", form, headers)
    return connection.sock


def test_held_requests_do_not_block_others(sandbox: Process) -> None:
    """Beyond the limit of held requests the next is refused, and healthy ones continue.

    When the clients hang up, their places are free again long before the time is over.
    """
    held = [hold(sandbox, f"held-{n}") for n in range(60)]
    refused = wait_until(lambda: [c for c in held if _answered(c)], what="a refused request")
    assert b"503" in refused[0].recv(15)
    assert http.get(f"{sandbox.url}/health").status_code == 200
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
        lambda: [line for line in sandbox.log.read_text().splitlines() if "logged" in line],
        what="the log line",
    )
    assert '"transaction_id": "logged"' in lines[0]
    assert "sk_test" not in sandbox.log.read_text()


def test_wrong_database(tmp_path: Path) -> None:
    """An unusable database stops the start with the variable's name."""
    (tmp_path / "file").write_text("no database at all, and certainly none of SQLite's")
    environ = {"HTTP_PORT": "1", "SANDBOX_DATABASE": str(tmp_path / "file"), "WORKERS": "4"}
    done = call([sys.executable, "-m", "services.psp_sandbox"], os.environ | environ)
    assert done.returncode == 78
    assert "SANDBOX_DATABASE" in done.stderr
    assert "not a database" in done.stderr
