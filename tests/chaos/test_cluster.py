"""A Redis Cluster under load: primaries and connectors are killed, partitions move.

With REDIS_REPLICAS_MIN=1 each payment that got a 202 is captured, once.
"""

import contextlib
import random
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from services.common import redis_client, store
from services.common.tokens import Tokens
from services.core_api.settings import CoreSettings
from tests import support
from tests.chaos.conftest import FAST_RETRIES
from tests.chaos.harness import figures
from tests.chaos.sender import accepted
from tests.cluster import RedisCluster, connect, redis_cluster
from tests.support import wait_until

PAYMENTS = 3000
SENDERS = 12
MERCHANTS = 48
COUNT = 16
PARTITIONS = store.partitions(COUNT)
END_SECONDS_MAX = 60
CONNECTORS = 2


@dataclass
class Run:
    """The services of one run, and its observations."""

    cluster: RedisCluster
    folder: Path
    environ: dict[str, str]
    core: str
    accepted: list[tuple[int, str]] = field(default_factory=list)
    """Merchant and transaction of each payment; `append` is atomic."""
    refused: list[int] = field(default_factory=list)
    outages: list[float] = field(default_factory=list)
    """Seconds from a merchant's first refusal of a payment to its 202."""
    kills: Counter[str] = field(default_factory=Counter)

    def pay(self, http: httpx.Client, tokens: Tokens, amount: int) -> None:
        """One payment, repeated with its key until it gets a 202."""
        user_id = amount % MERCHANTS
        body = {"amount": amount, "currency": "USD"}
        began: list[float] = []

        def post(key: str) -> tuple[int, str]:
            token = tokens.issue(user_id, f"user{user_id}", enabled=True)
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
            response = http.post(f"{self.core}/", json=body, headers=headers)
            assert response.status_code in {202, 503}, response.text
            assert response.status_code == 202 or "Retry-After" in response.headers
            return response.status_code, response.text

        def refused(status: int) -> None:
            began.append(time.monotonic())
            self.refused.append(status)

        self.accepted.append((user_id, accepted(post, refused)))
        self.outages += [time.monotonic() - first for first in began[:1]]


def break_things(run: Run, sending: threading.Event) -> None:
    """Kills a primary, kills a connector, and moves a partition, while payments are sent."""
    rng = random.Random(7)
    with contextlib.ExitStack() as stack:

        def connector() -> psutil.Process:
            folder = Path(tempfile.mkdtemp(dir=run.folder))
            service = support.service("psp_connector", folder, **run.environ)
            return stack.enter_context(service)[1]

        connectors = [connector() for _ in range(CONNECTORS)]
        while sending.is_set():
            time.sleep(rng.uniform(0.3, 1))
            number = rng.choice(sorted(run.cluster.current_primaries()))
            run.cluster.kill(number)
            run.kills["primaries"] += 1
            victim = rng.randrange(CONNECTORS)
            connectors[victim].kill()
            run.kills["connectors"] += 1
            connectors[victim] = connector()
            wait_until(lambda: len(run.cluster.current_primaries()) == 3, what="a failover")
            run.cluster.start(number)
            wait_until(run.cluster.is_healthy, what="a healthy cluster")
            if rng.random() < 0.5:
                partition = rng.choice(PARTITIONS)
                others = run.cluster.current_primaries().keys() - {run.cluster.owner(partition)}
                with run.cluster.moving(partition, rng.choice(sorted(others))):
                    run.kills["slots moved"] += 1
                time.sleep(0.5)
        finish(run)


def finish(run: Run) -> None:
    """Waits until all accepted payments are final."""
    with contextlib.closing(connect(run.cluster)) as client:

        def is_done() -> bool:
            try:
                return not any(client.xlen(p.queue) + client.zcard(p.retries) for p in PARTITIONS)
            except redis_client.ERRORS:
                return False

        with contextlib.suppress(AssertionError):  # the assertion below reports what is lost
            wait_until(is_done, seconds_max=END_SECONDS_MAX, what="the queues' end")


def statuses(run: Run) -> Counter[str | None]:
    """The number of accepted payments by status; None: no record."""
    with contextlib.closing(connect(run.cluster)) as client:
        return Counter(
            client.hget(
                store.partition_of(user_id, PARTITIONS).transaction(transaction_id), "status"
            )
            for user_id, transaction_id in run.accepted
        )


def test_no_accepted_payment_is_lost_or_charged_twice(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    with (
        redis_cluster(tmp_path / "cluster") as cluster,
        support.service("psp_sandbox", tmp_path) as (sandbox, _),
        ThreadPoolExecutor(SENDERS + 1) as pool,
    ):
        environ = FAST_RETRIES | {
            "JWT_SECRET": "s" * 32, "REDIS_CLUSTER": "1", "REDIS_URL": cluster.url,
            "PARTITIONS": str(COUNT), "REDIS_REPLICAS_MIN": "1", "PSP_URL": sandbox,
        }  # fmt: skip
        tokens = Tokens(CoreSettings.read(environ | {"HTTP_PORT": "1"}))
        sending = threading.Event()
        sending.set()
        with (
            support.service("core_api", tmp_path / "core", **environ) as (core, _),
            httpx.Client(timeout=10, trust_env=False) as http,
        ):
            run = Run(cluster, tmp_path, environ, core)
            breaking = pool.submit(break_things, run, sending)
            began = time.monotonic()
            try:
                list(pool.map(lambda n: run.pay(http, tokens, n), range(1, PAYMENTS + 1)))
            finally:
                sending.clear()
            seconds = time.monotonic() - began
            breaking.result(120)
        rows = support.http.get(f"{sandbox}/_sandbox/payment_intents?limit=50000").json()["data"]
        intents = [row["payment_intent"] for row in rows]
        captured = Counter(one["amount"] for one in intents if one["status"] == "succeeded")
        figures(
            payments=PAYMENTS, **run.kills, refusals=dict(Counter(run.refused)),
            seconds=round(seconds),
            longest_refused_seconds=round(max(run.outages, default=0), 1),
        )  # fmt: skip
        assert statuses(run) == {"captured": PAYMENTS}, "none is lost"
        assert [amount for amount, times in captured.items() if times > 1] == [], "charged twice"
