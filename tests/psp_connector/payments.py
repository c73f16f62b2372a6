"""Accepted payments, connectors in the test's threads that charge them, and a PSP."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from services.common import store
from services.common.transaction import FINAL, Transaction
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import Breaker
from services.psp_connector.connector import Connector
from services.psp_connector.psp import PSP, Captured, Charge, Outcome, Transient
from services.psp_connector.queue import Queue
from services.psp_connector.records import Work
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.sweep import Sweep
from tests.support import wait_until

STORE = store.WHOLE


class Payments:
    """All payments in a Redis; `admin` may do what the services may not."""

    def __init__(self, client: Any, settings: ConnectorSettings, admin: Any) -> None:
        self.client = client
        self.admin = admin
        self.settings = settings
        self._transactions = Transactions(client, 10**6)

    def accept(
        self, user_id: int = 1, amount: int = 1250, currency: str = "USD", **more: str
    ) -> str:
        """Accepts a transaction as the Core API does; returns its id."""
        payment = TransactionRequest(amount=amount, currency=currency, **more)
        return self._transactions.accept(user_id, payment, "req", None).transaction_id

    def queue(self, name: str, partition: store.Partition = STORE) -> Queue:
        """The queue for a connector of that name, with a lease."""
        queue = Queue(self.client, self.settings, name, partition)
        queue.join()
        return queue

    def connector(
        self,
        psp: PSP,
        name: str = "one",
        partitions: Sequence[store.Partition] = (STORE,),
        concurrency: int = 4,
    ) -> Connector:
        """A connector with short delays."""
        return Connector(
            [Queue(self.client, self.settings, name, partition) for partition in partitions],
            Sweep(self.client, partitions),
            psp,
            Breaker(concurrency, Backoff(0.01, 0.1)),
            Backoff(self.settings.psp_backoff_seconds, 0.05),
            concurrency=concurrency,
            attempts_max=self.settings.psp_attempts_max,
        )

    @contextlib.contextmanager
    def running(
        self, psp: PSP, name: str = "one", *, drain_seconds: float = 5, **options: Any
    ) -> Iterator[None]:
        """Runs a connector during the block; with 0 s to drain, its calls in flight are lost."""
        connector = self.connector(psp, name, **options)
        thread = threading.Thread(target=connector.run)
        thread.start()
        try:
            yield
        finally:
            connector.stop()
            thread.join(10)
            connector.drain(drain_seconds)

    def end(self, psp: PSP, *ids: str) -> None:
        """Runs a connector until these transactions are final and nothing else is open."""
        with self.running(psp):
            self.wait_ended(*ids)
            wait_until(self.nothing_left, what="the end of everything else")

    def ended(self, *ids: str) -> bool:
        return all(self.record(i)["status"] in FINAL for i in ids)

    def wait_ended(self, *ids: str, seconds_max: float = 60) -> None:
        wait_until(lambda: self.ended(*ids), seconds_max=seconds_max, what=f"the end of {ids}")

    def nothing_left(self) -> bool:
        return not self.client.xlen(STORE.queue) and not self.client.zcard(STORE.retries)

    def record(self, transaction_id: str) -> dict[str, Any]:
        fields = self.client.hgetall(STORE.transaction(transaction_id))
        return Transaction.model_validate(fields).model_dump(exclude_none=True)

    def change(self, transaction_id: str, field: str, value: str | None) -> None:
        """Changes a record by hand; None deletes the field."""
        key = STORE.transaction(transaction_id)
        if value is None:
            self.client.hdel(key, field)
        else:
            self.client.hset(key, field, value)

    def letters(self) -> list[dict[str, str]]:
        """The dead letters, oldest first."""
        return [letter for _, letter in self.client.xrange(STORE.deadletters)]

    def points(self, user_id: int = 1) -> int:
        return int(self.client.get(STORE.points(user_id)) or 0)

    def consumers(self) -> set[str]:
        return {c["name"] for c in self.client.xinfo_consumers(STORE.queue, store.GROUP)}


def work(entry_id: str, merchant: str = "") -> Work:
    """An attempt for which there is nothing in Redis."""
    return Work(entry_id, 1, 1, Charge("t", "r", 1250, "USD", "pm"), merchant)


def take(queue: Queue, count: int = 10) -> list[Work]:
    """Begins attempts for up to this many new transactions."""
    return queue.begin(queue.read(count, 10))


def take_over(queue: Queue, in_flight: frozenset[str] = frozenset()) -> list[Work]:
    """Begins attempts for abandoned entries and those set aside."""
    merchants = queue.reclaim(in_flight)
    return queue.begin(queue.assign([], dict.fromkeys(merchants, 100)))


def captured(charge: Charge, _call: int) -> Captured:
    return Captured(f"pi_{charge.transaction_id}")


class FakePsp:
    """A PSP that responds to a charge, and the number of its call, as a function says."""

    def __init__(self, response: Callable[[Charge, int], Outcome] = captured) -> None:
        self._response = response
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.up = True
        self.probes = 0

    def charge(self, charge: Charge) -> Outcome:
        with self._lock:
            self.calls[charge.transaction_id] += 1
            call = self.calls[charge.transaction_id]
        return self._response(charge, call) if self.up else Transient("no response")

    def is_available(self) -> bool:
        self.probes += 1
        return self.up
