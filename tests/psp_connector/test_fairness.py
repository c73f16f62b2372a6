"""One merchant's flood next to another's payments, with the real sandbox and Redis."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from services.common.transaction import FINAL
from services.psp_connector.__main__ import build
from services.psp_connector.settings import ConnectorSettings
from tests import support
from tests.psp_connector.payments import Payments, running
from tests.psp_sandbox import process

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
    with process.running(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox.url


def seconds_taken(payments: Payments, transaction_id: str) -> float | None:
    """Seconds from acceptance to the final status."""
    found = payments.record(transaction_id)
    if found["status"] not in FINAL:
        return None
    assert found["status"] == "captured"
    began, ended = (datetime.fromisoformat(found[f"{name}_at"]) for name in ("created", "updated"))
    return (ended - began).total_seconds()


@pytest.mark.parametrize("flood", FLOODS)
def test_one_merchants_flood_does_not_delay_another(
    payments: Payments, sandbox: str, flood: str
) -> None:
    """Alice's payments finish within 2 s, however many payments becky queues."""
    count, methods = FLOODS[flood]
    for number in range(count):
        payments.accept(BECKY, payment_method=methods[number % len(methods)])
    settings = ConnectorSettings.read(
        {
            "HTTP_PORT": "1",
            "REDIS_URL": payments.settings.redis_url,
            "PSP_URL": sandbox,
            "PSP_TIMEOUT_SECONDS": "2.5",
        }
    )
    ids = []
    with running(build(settings)[0], 6):
        for number in range(PAYMENTS):
            ids.append(payments.accept(ALICE))
            payments.accept(BECKY, payment_method=methods[number % len(methods)])
            time.sleep(0.05)
        with contextlib.suppress(AssertionError):
            support.wait_until(lambda: all(seconds_taken(payments, i) for i in ids), seconds_max=20)
        took = sorted(seconds_taken(payments, i) or 99.0 for i in ids)
    assert took[-1] < SECONDS_MAX
