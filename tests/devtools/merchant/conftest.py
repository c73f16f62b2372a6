"""Shared by the tests of merchant: the command, called in this process."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest

from devtools.merchant import commands
from devtools.merchant.__main__ import main
from tests.devtools.merchant.platform import Platform, Services, Stranger

PAY = ["pay", "1250", "USD", "--as", "alice"]
# A payment, and a login.
RECORD: dict[str, Any] = {
    "id": "0f8fad5b-d9cb-469f-a165-70867728950e", "user_id": 1, "amount": 1250, "currency": "USD",
    "payment_method": "pm_card_visa", "status": "captured",
    "created_at": "2026-11-23T07:00:00.003Z", "updated_at": "2026-11-23T07:00:00.040Z",
    "attempts": 2, "psp_reference": "pi_1", "loyalty_points": 12,
    "timeline": [{"event": "queued", "at": "2026-11-23T07:00:00.003Z"}],
    "token": "t", "expires_in": 30,
}  # fmt: skip


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


def merchant(
    *argv: str,
    environ: Mapping[str, str] | None = None,
    servers: tuple[Platform | Stranger, ...] = (),
) -> Outcome:
    """Runs the command in this process, where it reaches the servers without a network."""
    mounts = {server.url: httpx.MockTransport(server.respond) for server in servers}
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(commands, "_POLL_SECONDS_MIN", 0.001)
        patch.setattr(httpx, "Client", partial(httpx.Client, mounts=mounts))
        try:
            code = main(argv, environ or {})
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


def at(server: Platform | Stranger, *argv: str, **more: Any) -> Outcome:
    return merchant(*argv, "--url", server.url, servers=(server,), **more)


@pytest.fixture(scope="session")
def services(redis_port: int) -> Services:
    return Services(redis_port)


@pytest.fixture
def platform(services: Services, client: Any) -> Platform:
    return Platform(services, client)
