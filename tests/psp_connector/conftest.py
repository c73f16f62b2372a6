from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector import connector, dispatch
from services.psp_connector.settings import ConnectorSettings

if TYPE_CHECKING:
    from collections.abc import Callable

Accept = "Callable[..., str]"


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads of an empty queue block briefly: each test ends a connector, which waits for one."""
    monkeypatch.setattr(dispatch, "BLOCK_MS", 20)
    monkeypatch.setattr(connector, "BLOCK_MS", 20)


@pytest.fixture
def settings(redis_port: int) -> ConnectorSettings:
    return ConnectorSettings.read(
        {
            "HTTP_PORT": "1",
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "PSP_URL": "http://127.0.0.1:1",
            "PSP_BACKOFF_SECONDS": "0.01",
            "PSP_ATTEMPTS_MAX": "3",
        }
    )


@pytest.fixture
def accept(client: Any) -> Callable[..., str]:
    """Accepts a transaction as the Core API does; returns its id."""
    transactions = Transactions(client, 10**6)

    def one(user_id: int = 1, amount: int = 1250, currency: str = "USD") -> str:
        wanted = TransactionRequest(amount=amount, currency=currency)
        return transactions.accept(user_id, wanted, "req", None).transaction_id

    return one
