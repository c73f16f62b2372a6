"""The real process, used by the connector's client, and started with bad settings."""

import os
import select
import socket
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import pytest

from services.common.settings import EXIT_BAD_SETTINGS
from services.psp_connector.psp import Captured, Charge, Outcome, Transient
from tests.psp_connector.http_psp import client
from tests.psp_sandbox.sandbox import FORM, PAYMENT
from tests.support import call, http, service, wait_until


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running sandbox."""
    with service("psp_sandbox", tmp_path_factory.mktemp("sandbox")) as (url, _process):
        yield url


def pay(url: str, key: str, method: str = "pm_card_visa") -> Outcome:
    return client(url).charge(Charge(key, "r", 1250, "USD", method))


def hold(url: str, key: str) -> socket.socket:
    """A connection with a payment request that gets no response."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
    form = urlencode(PAYMENT | {"payment_method": "pm_sandbox_timeout"})
    connection.request("POST", "/v1/payment_intents", form, FORM | {"Idempotency-Key": key})
    return connection.sock


def test_held_requests_do_not_block_others(url: str) -> None:
    """Beyond the limit of held requests the next is refused, and healthy ones continue.

    When their clients hang up, others may wait again long before the hold time is over.
    """
    held = [hold(url, f"held-{n}") for n in range(60)]
    refused, _, _ = select.select(held, [], [], 10)
    assert b"503" in refused[0].recv(15)
    assert http.get(f"{url}/health").status_code == 200
    assert isinstance(pay(url, "beside-held"), Captured)
    for connection in held:
        connection.close()
    slow = "pm_sandbox_slow"
    wait_until(lambda: isinstance(pay(url, "place", slow), Captured), seconds_max=15)


def test_dropped_connection(url: str) -> None:
    """The connection closes without a response, and the payment is captured."""
    http.put(f"{url}/_sandbox/faults", json={"down": "connection_closed_after_capture"})
    assert pay(url, "dropped") == Transient("no response")
    http.delete(f"{url}/_sandbox/faults")
    assert isinstance(pay(url, "dropped"), Captured)
    recorded = http.get(f"{url}/_sandbox/payment_intents").json()
    assert recorded["data"][0]["requests"] == 2


def test_wrong_database(tmp_path: Path) -> None:
    """An unusable database stops the start with the variable's name."""
    (tmp_path / "file").write_text("no database at all, and certainly none of SQLite's")
    environ = {"HTTP_PORT": "1", "SANDBOX_DATABASE": str(tmp_path / "file"), "WORKERS": "4"}
    done = call([sys.executable, "-m", "services.psp_sandbox"], os.environ | environ)
    assert done.returncode == EXIT_BAD_SETTINGS
    assert "nothing was started" in done.stderr
    assert "SANDBOX_DATABASE" in done.stderr
    assert "not a database" in done.stderr
