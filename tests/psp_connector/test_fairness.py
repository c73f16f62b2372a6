"""A flood of one merchant next to payments of another, with the real sandbox and Redis."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from services.common import store
from services.common.transaction import FINAL
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector.__main__ import build
from services.psp_connector.settings import ConnectorSettings
from tests import support
from tests.psp_sandbox.process import running

if TYPE_CHECKING:
    from collections.abc import Iterator

ALICE, BECKY = 1, 2
PAYMENTS = 12
SECONDS_MAX = 2.0  # below PSP_TIMEOUT_SECONDS, after which any slot is free again
FLOODS = {
    "timeout": (100, ("pm_sandbox_timeout",)),
    "captured": (1500, ("pm_card_visa",)),
    "mix": (
        300,
        ("pm_card_visa", "pm_sandbox_error_500", "pm_sandbox_flaky", "pm_sandbox_timeout",
         "pm_sandbox_slow", "pm_sandbox_rate_limited", "pm_card_chargeDeclined"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox.url


@contextlib.contextmanager
def connector(redis_port: int, psp_url: str) -> Iterator[None]:
    settings = ConnectorSettings.read(
        {
            "HTTP_PORT": "1",
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "PSP_URL": psp_url,
            "PSP_TIMEOUT_SECONDS": "2.5",
        }
    )
    one, _app = build(settings)
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        yield
    finally:
        one.stop()
        thread.join(10)
        one.drain(6)


def pay(client: Any, user_id: int, method: str) -> str:
    payment = TransactionRequest(amount=1250, currency="USD", payment_method=method)
    transactions = Transactions(client, 10**6)
    return transactions.accept(user_id, payment, str(uuid.uuid4()), None).transaction_id


def seconds_taken(client: Any, transaction_id: str) -> float | None:
    """From its acceptance to its end."""
    status, created_at, updated_at = client.hmget(
        store.WHOLE.transaction(transaction_id), "status", "created_at", "updated_at"
    )
    if status not in FINAL:
        return None
    assert status == "captured"
    took = datetime.fromisoformat(updated_at) - datetime.fromisoformat(created_at)
    return took.total_seconds()


@pytest.mark.parametrize("flood", FLOODS)
def test_no_flood_of_one_merchant_holds_up_another(
    client: Any, redis_port: int, sandbox: str, flood: str
) -> None:
    """Alice's payments end within 2 s, whatever becky has queued before and queues meanwhile."""
    count, methods = FLOODS[flood]
    for number in range(count):
        pay(client, BECKY, methods[number % len(methods)])
    ids = []
    with connector(redis_port, sandbox):
        for number in range(PAYMENTS):
            ids.append(pay(client, ALICE, "pm_card_visa"))
            pay(client, BECKY, methods[number % len(methods)])
            time.sleep(0.05)
        with contextlib.suppress(AssertionError):
            support.wait_until(lambda: all(seconds_taken(client, i) for i in ids), seconds_max=20)
        took = sorted(seconds_taken(client, i) or 99.0 for i in ids)
    assert took[-1] < SECONDS_MAX
