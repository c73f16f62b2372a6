"""Several connectors and partitions on one Redis, and what waiting for a replica costs."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil

from bench.results import Details, MeasureError, Row, Sample
from bench.rows import Bench, measures
from services.common import redis_client, store
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    Measured = Iterator[tuple[list[Sample], Details]]

_MERCHANTS = 256
# Connectors, and partitions.
_OTHERS = ((2, 1), (4, 1), (2, 16), (4, 16), (1, 64))
_REQUEST = TransactionRequest(amount=1250, currency="USD")
_DRAIN_SECONDS_MAX = 120
_POLL_SECONDS = 0.02


@contextlib.contextmanager
def _redis(bench: Bench, name: str, *options: str) -> Iterator[tuple[str, store.Client]]:
    """An empty Redis with the platform's configuration."""
    port = support.free_ports(1)
    url = f"redis://127.0.0.1:{port}/0"
    with (
        support.redis_server(bench.folder / f"{name}-{port}", port, *options),
        contextlib.closing(redis_client.connect(url, timeout_seconds=5)) as client,
    ):
        yield url, client


def _accept_us(client: store.Client, jobs: int, count: int = 1, replicas_min: int = 0) -> float:
    """Microseconds for each of `jobs` accepts, one after the other."""
    transactions = Transactions(client, 10**9, store.partitions(count), replicas_min=replicas_min)
    began = time.perf_counter()
    for number in range(jobs):
        transactions.accept(number % _MERCHANTS, _REQUEST, "bench", None)
    return (time.perf_counter() - began) / jobs * 1e6


def _drain(bench: Bench, details: Details, connectors: int, count: int) -> float:
    """Transactions per second of connectors with a PSP that captures at once."""
    jobs, partitions = bench.plan.drain_jobs // 2, store.partitions(count)
    with contextlib.ExitStack() as stack:
        url, client = stack.enter_context(_redis(bench, "drain"))
        _accept_us(client, jobs, count)

        def left() -> int:
            pipeline = client.pipeline(transaction=False)
            for one in partitions:
                pipeline.xlen(one.queue)
            return sum(pipeline.execute())

        processes = [
            stack.enter_context(
                support.program(
                    [sys.executable, "-m", "bench.psp"],
                    environ={
                        **os.environ, "REDIS_URL": url, "PARTITIONS": str(count),
                        "PSP_URL": "http://127.0.0.1:1", "LOG_FORMAT": "json",
                        "HTTP_PORT": str(support.free_ports(1)),
                    },
                    output=bench.folder / "partitions.log",
                )
            )
            for _number in range(connectors)
        ]  # fmt: skip
        deadline = time.monotonic() + _DRAIN_SECONDS_MAX
        first, began, used = 0, 0.0, 0.0
        while (open_now := left()) or not first:
            if open_now < jobs and not first:
                first, began, used = open_now, time.monotonic(), _cpu_seconds(processes)
            if time.monotonic() > deadline or any(one.poll() is not None for one in processes):
                raise MeasureError(f"{connectors} x {count}: {open_now} of {jobs} left")
            time.sleep(_POLL_SECONDS)
        rate = first / (time.monotonic() - began)
        name = f"{connectors} x {count}"
        details[f"{name}: /s"] = round(rate)
        details[f"{name}: us"] = round((_cpu_seconds(processes) - used) / first * 1e6)
        return rate


def _cpu_seconds(processes: list[Any]) -> float:
    return sum(sum(psutil.Process(one.pid).cpu_times()[:2]) for one in processes)


@measures(Row("partitions", "draining 16 partitions against 1, PSP in process", "/s", 0.4))
def _partitions(bench: Bench) -> Measured:
    """The details have connectors x partitions: payments a second, and the connectors' CPU time."""
    details: Details = {}
    samples = bench.interleaved(
        "partitions",
        partial(_drain, bench, details, 1, 16),
        partial(_drain, bench, details, 1, 1),
    )
    for connectors, count in _OTHERS:
        _drain(bench, details, connectors, count)
    yield samples, details


@measures(Row("replica", "accepting with a replica's confirmation", "us", 2.5, at_most=True))
def _replica(bench: Bench) -> Measured:
    """REDIS_REPLICAS_MIN=1 against 0, one accept after the other, on the same pair of Redis."""
    jobs = bench.plan.drain_jobs // 4
    with _redis(bench, "primary") as (url, client):
        port = url.rpartition(":")[2].partition("/")[0]
        with _redis(bench, "replica", "--replicaof", "127.0.0.1", port):
            support.wait_until(lambda: client.wait(1, 100) == 1, what="the replica")
            yield (
                bench.interleaved(
                    "replica",
                    partial(_accept_us, client, jobs, replicas_min=1),
                    partial(_accept_us, client, jobs),
                ),
                {},
            )
