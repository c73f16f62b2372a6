"""A connector's main loop in a thread of the test."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from services.common import store
from services.common.transaction import FINAL, Transaction
from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import Breaker
from services.psp_connector.connector import Connector
from services.psp_connector.psp import Captured
from services.psp_connector.queue import Queue
from services.psp_connector.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.psp_connector.psp import PSP, Charge
    from services.psp_connector.settings import ConnectorSettings

    Accept = Callable[..., str]


def make(client: Any, settings: ConnectorSettings, psp: PSP, name: str = "one") -> Connector:
    return Connector(
        [Queue(client, settings, name)],
        Sweep(client),
        psp,
        Breaker(4, Backoff(0.01, 0.1)),
        Backoff(settings.psp_backoff_seconds, 0.05),
        concurrency=4,
        attempts_max=settings.psp_attempts_max,
        sleep=lambda seconds: time.sleep(seconds / 50),
    )


@contextlib.contextmanager
def running(connector: Connector) -> Iterator[Connector]:
    thread = threading.Thread(target=connector.run)
    thread.start()
    try:
        yield connector
    finally:
        connector.stop()
        thread.join(10)
        connector.drain(5)


def record(client: Any, transaction_id: str) -> dict[str, Any]:
    found = client.hgetall(store.WHOLE.transaction(transaction_id))
    return Transaction.model_validate(found).model_dump(exclude_none=True)


def ended(client: Any, *ids: str) -> bool:
    return all(record(client, i)["status"] in FINAL for i in ids)


def nothing_left(client: Any) -> bool:
    return not client.xlen(store.WHOLE.queue) and not client.zcard(store.WHOLE.retries)


def slowly(charge: Charge, _call: int) -> Captured:
    time.sleep(0.02)
    return Captured(f"pi_{charge.transaction_id}")
