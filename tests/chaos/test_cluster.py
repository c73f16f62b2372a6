"""A Redis Cluster under load: primaries and connectors are killed, partitions move.

With REDIS_REPLICAS_MIN=1 each payment that got a 202 is captured, once.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis.crc import key_slot

from services.common import redis_client, scripts, store
from services.common.tokens import Tokens
from services.core_api.settings import CoreSettings
from tests import support
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
    sandbox: str
    accepted: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Merchant and transaction by amount, which each payment has for itself."""
    refused: Counter[int] = field(default_factory=Counter)
    outages: list[float] = field(default_factory=list)
    """Seconds from a merchant's first refusal of a payment to its 202."""
    kills: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

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
            with self._lock:
                self.refused[status] += 1

        transaction_id = accepted(post, refused)
        with self._lock:
            self.accepted[amount] = (user_id, transaction_id)
            self.outages += [time.monotonic() - first for first in began[:1]]

    def captured(self) -> Counter[int]:
        """How often the PSP has captured each amount."""
        url, params = f"{self.sandbox}/_sandbox/payment_intents", {"limit": "1000"}
        found: list[dict[str, Any]] = []
        while "cursor" not in params or params["cursor"]:
            page = support.http.get(url, params=params).json()
            found += (one["payment_intent"] for one in page["data"])
            params["cursor"] = page["next_cursor"] or ""
        return Counter(one["amount"] for one in found if one["status"] == "succeeded")


def connector(run: Run, number: int) -> Any:
    environ = run.environ | {"HTTP_PORT": str(support.free_ports(1)), "PSP_URL": run.sandbox}
    command = [sys.executable, "-m", "services.psp_connector"]
    return support.program(
        command, environ=environ, output=run.folder / f"psp-connector-{number}.log"
    )


@contextlib.contextmanager
def services(cluster: RedisCluster, folder: Path, replicas_min: int) -> Iterator[Run]:
    core, sandbox = (f"http://127.0.0.1:{support.free_ports(1)}" for _ in range(2))
    environ = {
        **os.environ,
        "JWT_SECRET": "s" * 32,
        "REDIS_CLUSTER": "1",
        "REDIS_URL": cluster.url,
        "PARTITIONS": str(COUNT),
        "REDIS_REPLICAS_MIN": str(replicas_min),
        "PSP_BACKOFF_SECONDS": "0.02",
        "PSP_BACKOFF_SECONDS_MAX": "0.5",
        "PSP_ATTEMPTS_MAX": "50",
        "LOG_FORMAT": "json",
        "PLATFORM_STATE": "",
    }
    run = Run(cluster, folder, environ, core, sandbox)
    with contextlib.ExitStack() as stack:
        for name, url in (("psp_sandbox", sandbox), ("core_api", core)):
            stack.enter_context(
                support.program(
                    [sys.executable, "-m", f"services.{name}"],
                    environ=environ | {"HTTP_PORT": url.rpartition(":")[2]},
                    output=folder / f"{name}.log",
                )
            )
            wait_until(lambda url=url: _is_up(url), what=name)  # type: ignore[misc]
        yield run


def _is_up(url: str) -> bool:
    try:
        return support.http.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def break_things(run: Run, sending: threading.Event) -> None:
    """Kills a primary, kills a connector, and moves a partition, while payments are sent."""
    luck = random.Random(7)
    with contextlib.ExitStack() as stack:
        connectors: list[subprocess.Popen[bytes]] = [
            stack.enter_context(connector(run, number)) for number in range(CONNECTORS)
        ]
        while sending.is_set():
            time.sleep(luck.uniform(0.3, 1))
            number = luck.choice(sorted(run.cluster.masters_now()))
            run.cluster.kill(number)
            run.kills["masters"] += 1
            victim = luck.randrange(CONNECTORS)
            connectors[victim].kill()
            run.kills["connectors"] += 1
            connectors[victim] = stack.enter_context(connector(run, victim))
            wait_until(lambda: len(run.cluster.masters_now()) == 3, what="a failover")
            run.cluster.start(number)
            wait_until(run.cluster.is_well, what="a cluster that is well")
            if luck.random() < 0.5:
                move(run.cluster, luck.choice(PARTITIONS), luck)
                run.kills["slots moved"] += 1
                time.sleep(0.5)
        wait_until(run.cluster.is_well, what="a cluster that is well")
        finish(run)


def move(cluster: RedisCluster, partition: store.Partition, luck: random.Random) -> None:
    """Moves a partition's slot with its keys to another master, as redis-cli does."""
    slot = key_slot(partition.queue.encode())
    with contextlib.closing(connect(cluster)) as client:
        source = int(scripts.lane(client, partition).rpartition(":")[2]) - cluster.first_port
    masters = cluster.masters_now()
    target = luck.choice(sorted(masters.keys() - {source}))
    with cluster.client(target) as new, cluster.client(source) as old:
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", masters[source])
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", masters[target])
        port = cluster.first_port + target
        while names := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            old.migrate("127.0.0.1", port, names, 0, 5000)
        for one in (new, old):
            one.execute_command("CLUSTER SETSLOT", slot, "NODE", masters[target])


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
            for user_id, transaction_id in run.accepted.values()
        )


def chaos(folder: Path, payments: int, replicas_min: int) -> tuple[int, int]:
    """Returns how many accepted payments were lost, and how many were captured twice."""
    with (
        redis_cluster(folder / "cluster") as cluster,
        services(cluster, folder, replicas_min) as run,
        ThreadPoolExecutor(SENDERS + 1) as pool,
    ):
        tokens = Tokens(CoreSettings.read(run.environ | {"HTTP_PORT": "1"}))
        sending = threading.Event()
        sending.set()
        breaking = pool.submit(break_things, run, sending)
        began = time.monotonic()
        with httpx.Client(timeout=10, trust_env=False) as http:
            list(pool.map(lambda n: run.pay(http, tokens, n), range(1, payments + 1)))
        seconds = time.monotonic() - began
        sending.clear()
        breaking.result(120)
        found, captured = statuses(run), run.captured()
        lost = sum(found.values()) - found["captured"]
        doubled = sum(1 for count in captured.values() if count > 1)
        longest = sorted(run.outages)[-1:] or [0.0]
        figures(
            f"cluster, REDIS_REPLICAS_MIN={replicas_min}", payments=payments, lost=lost,
            doubled=doubled, **run.kills, refusals=dict(run.refused), seconds=round(seconds),
            longest_refused_seconds=round(longest[0], 1),
        )  # fmt: skip
        return lost, doubled


def test_no_accepted_payment_is_lost_or_charged_twice(tmp_path: Path) -> None:
    assert chaos(tmp_path, PAYMENTS, replicas_min=1) == (0, 0)
