"""The sandbox in its own process, and the connector's client of it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from services.psp_connector.psp import Charge, Outcome
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import StripePsp
from tests import support

COMMAND = [sys.executable, "-m", "services.psp_sandbox"]


class Process:
    """A running sandbox."""

    def __init__(self, port: int, output: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.output = output
        environ = {"HTTP_PORT": "1", "REDIS_URL": "redis://127.0.0.1:1", "PSP_URL": self.url}
        self._psp = StripePsp(ConnectorSettings.read(environ))

    def pay(self, key: str, method: str = "pm_card_visa") -> Outcome:
        return self._psp.charge(Charge(key, "r", 1250, "USD", method))

    def is_healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return support.http.get(f"{self.url}/health").status_code == 200
        return False

    def shown(self, **query: str) -> Any:
        url = f"{self.url}/_sandbox/payment_intents"
        return support.http.get(url, params=query).json()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Process]:
    sandbox = Process(support.free_ports(1), folder / "sandbox.log")
    environ = os.environ | {"HTTP_PORT": str(sandbox.port), "LOG_FORMAT": "json"}
    with support.program(COMMAND, environ=environ, output=sandbox.output):
        support.wait_until(sandbox.is_healthy, what="the sandbox")
        yield sandbox
