"""Traffic for the chaos tests, and the invariants after it."""

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psutil
import redis

from devtools import loglines
from services.common import store
from services.common.currencies import major_units
from services.common.transaction import FINAL
from tests import support
from tests.chaos.sender import Sender
from tests.stack.stack import Stack

SENDERS = 4
TRAFFIC_MAX = 4000  # more than 40 s of it
END_SECONDS_MAX = 90
FIGURES: list[str] = []
"""One line per test, printed at the end of the run."""
CAPTURES = "pm_card_visa"
DECLINES = "pm_card_chargeDeclined"
FLAKY = "pm_sandbox_flaky"
SLOW = "pm_sandbox_slow"
# Mostly good cards; a tenth each are declined or need three attempts.
PLAIN = (*(CAPTURES,) * 9, DECLINES)
MIXED = (CAPTURES,) * 8 + (DECLINES, FLAKY)


def figures(**numbers: object) -> None:
    """Records what the current test has measured."""
    test = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].removesuffix(" (call)")
    each = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in numbers.items())
    FIGURES.append(f"{test}: {each}")


@dataclass
class Chaos:
    """A stack under test, and everything it has accepted so far."""

    stack: Stack
    accepted: list[str] = field(default_factory=list)
    repeats: int = 0
    kills: int = 0

    def send(
        self,
        count: int,
        methods: tuple[str, ...] = MIXED,
        *,
        pause_seconds: float = 0,
        until: threading.Event | None = None,
    ) -> list[str]:
        """Sends `count` transactions through the router; returns when all are accepted.

        Stops earlier if `until` is set.
        """

        def one_client(number: int) -> list[str]:
            rng = random.Random(number)
            sender = Sender(self.stack.port, ("alice", "becky")[number % 2])
            ids = []
            with contextlib.closing(sender):
                for n in range(number, count, SENDERS):
                    if until is not None and until.is_set():
                        break
                    amount, currency = rng.choice([(1250, "USD"), (500, "JPY"), (99, "EUR")])
                    method = methods[n % len(methods)]
                    ids.append(sender.pay(amount=amount, currency=currency, payment_method=method))
                    self.accepted.append(ids[-1])
                    time.sleep(pause_seconds)
            with lock:
                self.repeats += sender.repeats
            return ids

        lock = threading.Lock()
        with ThreadPoolExecutor(SENDERS) as pool:
            return [i for some in pool.map(one_client, range(SENDERS)) for i in some]

    @contextlib.contextmanager
    def traffic(self, methods: tuple[str, ...] = MIXED) -> Iterator[None]:
        """Sends about 80 transactions a second during the block."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.send, TRAFFIC_MAX, methods, pause_seconds=0.04, until=over)
            try:
                yield
            finally:
                over.set()
            assert 0 < len(future.result()) < TRAFFIC_MAX

    def kill(self, process: psutil.Process) -> None:
        """`kill -9`."""
        self.kills += 1
        process.kill()

    def alive(self, name: str) -> psutil.Process | None:
        """A process of the stack, unless it is not running now."""
        with contextlib.suppress(LookupError):
            return self.stack.process(name)
        return None

    def statuses(self, ids: list[str]) -> Counter[str]:
        """The number of these transactions by status."""
        with self.stack.redis() as client:
            pipeline = client.pipeline(transaction=False)
            for transaction_id in ids:
                pipeline.hget(store.WHOLE.transaction(transaction_id), "status")
            return Counter(str(status) for status in pipeline.execute())

    def statuses_of_all(self) -> Counter[str]:
        """The number of transactions by status, for all in Redis."""
        with self.stack.redis() as client:
            prefix = store.WHOLE.transaction("")
            return self.statuses([key.removeprefix(prefix) for key in client.keys(f"{prefix}*")])

    def ended(self, ids: list[str]) -> bool:
        """Whether all transactions are final; False while Redis is unavailable."""
        try:
            return self.statuses(ids).keys() <= FINAL
        except redis.RedisError:
            return False

    def wait_ended(self, ids: list[str], seconds_max: float = END_SECONDS_MAX) -> None:
        """Waits until all transactions are final."""
        support.wait_until(lambda: self.ended(ids), seconds_max=seconds_max, what="all to end")

    def in_flight(self, pid: int = 0) -> int:
        """Number of entries in flight, in total or for the connector with that pid."""
        with self.stack.redis() as client:
            held = client.xpending_range(store.WHOLE.queue, store.GROUP, "-", "+", 1000)
        # A connector's name is its host, its process id and something random; the other consumers
        # are merchants, whose entries wait.
        names = [e["consumer"] for e in held if not e["consumer"].startswith("merchant:")]
        return sum(not pid or name.split("-")[-2] == str(pid) for name in names)

    def scale(self, name: str, count: int) -> None:
        done = self.stack.compose("process", "scale", name, str(count))
        assert done.returncode == 0, done.stderr

    def events(self, number: int = 0) -> list[Mapping[str, str]]:
        """The log of one connector: process-compose gives each a file of its own.

        It may add a line of its own that is empty, when a process is killed.
        """
        lines = self.stack.log("psp-connector", f".{number}" if number else "").splitlines()
        return [line.fields for line in map(loglines.parse, lines) if line]

    def intents(self) -> list[tuple[str, dict[str, Any]]]:
        """All payments of the sandbox, each with its idempotency key."""
        rows = self.stack.sandbox("GET", "payment_intents?limit=50000")["data"]
        return [(row["idempotency_key"], row["payment_intent"]) for row in rows]

    def check(self, *, seconds_max: float = END_SECONDS_MAX) -> Counter[str]:
        """Checks what must hold at the end; records and returns the number of each status.

        Every accepted transaction is final and none has failed; the sandbox captured just those
        that are captured, each once; points, ledger and what was captured agree; nothing is left.
        """
        assert len(set(self.accepted)) == len(self.accepted)
        self.wait_ended(self.accepted, seconds_max)
        support.wait_until(lambda: not self.in_flight(), seconds_max=20, what="the last entry")
        with self.stack.redis() as client:
            pipeline = client.pipeline(transaction=False)
            for transaction_id in self.accepted:
                pipeline.hgetall(store.WHOLE.transaction(transaction_id))
            records = {r["id"]: r for r in pipeline.execute()}
            assert set(self.accepted) == records.keys()
            self._check_charges(records)
            self._check_points(client, records)
            assert client.xlen(store.WHOLE.queue) == 0
            assert client.zcard(store.WHOLE.retries) == 0
            assert client.xrange(store.WHOLE.deadletters) == []
        ended = Counter(record["status"] for record in records.values())
        figures(ended=dict(ended), kills=self.kills, repeated_requests=self.repeats)
        return ended

    def _check_charges(self, records: dict[str, dict[str, str]]) -> None:
        by_status = {
            status: {i for i, record in records.items() if record["status"] == status}
            for status in FINAL
        }
        # The sandbox charges a key once, so another charge would have a key of its own.
        charged = {key for key, intent in self.intents() if intent["status"] == "succeeded"}
        assert by_status["captured"] == charged
        assert by_status["failed"] == set()
        for key, intent in self.intents():
            record = records[key]
            assert int(record["amount"]) == intent["amount"]
            if intent["status"] == "succeeded":
                assert record["psp_reference"] == intent["id"]

    def _check_points(self, client: Any, records: dict[str, dict[str, str]]) -> None:
        expected: Counter[str] = Counter()
        for record in records.values():
            if record["status"] == "captured":
                points = major_units(int(record["amount"]), record["currency"])
                expected[record["user_id"]] += points
                assert str(points) == record["loyalty_points"]
        for user_id in {record["user_id"] for record in records.values()}:
            assert expected[user_id] == int(client.get(store.WHOLE.points(int(user_id))) or 0)
            ledger = client.lrange(store.WHOLE.ledger(int(user_id)), 0, -1)
            assert len(ledger) == sum(
                record["user_id"] == user_id and record.get("loyalty_points", "0") != "0"
                for record in records.values()
            )
