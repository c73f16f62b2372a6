"""Transactions per second while draining a full queue, each time in a Redis of its own."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import Popen

import psutil

from bench import copies, psp, stacks
from bench.results import Details, MeasureError, Row
from bench.rows import Bench, Measured, log, measures
from services.common import store
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector.settings import ConnectorSettings
from tests import support

Program = Popen[bytes]

CONCURRENCY: int = ConnectorSettings.model_fields["concurrency"].default
# Each with the connector's concurrency and, where that may be faster, with one thread; RQ has one
# per process. The fastest of earlier full runs come first.
QUEUES = (
    ("dramatiq", 1), ("dramatiq", CONCURRENCY), ("taskiq", CONCURRENCY), ("saq", CONCURRENCY),
    ("huey", 1), ("huey", CONCURRENCY), ("celery", 1), ("celery", CONCURRENCY), ("rq", 1),
)  # fmt: skip
_MERCHANTS = 256
# Connectors, and partitions.
_OTHERS = ((2, 1), (4, 1), (2, 16), (4, 16), (1, 64))
_REQUEST = TransactionRequest(amount=1250, currency="USD")
_DRAIN_SECONDS_MAX = 120
_POLL_SECONDS = 0.005


def _drained(
    bench: Bench, jobs: int, done: Callable[[], int], *commands: list[str], **settings: str
) -> tuple[float, float]:
    """Runs the commands until `jobs` are done, counted from the first ones seen.

    Returns transactions per second, and microseconds of CPU time for each.
    """
    output = bench.folder / "drain.log"
    output.unlink(missing_ok=True)
    deadline = time.monotonic() + _DRAIN_SECONDS_MAX
    first, began, used = 0, 0.0, 0.0
    with contextlib.ExitStack() as exit_stack:
        processes = [
            exit_stack.enter_context(_program(command, output, settings)) for command in commands
        ]
        while (count := done()) < jobs:
            if count and not first:
                first, began, used = count, time.monotonic(), _cpu_seconds(processes)
            if time.monotonic() > deadline or any(one.poll() is not None for one in processes):
                end = output.read_text(errors="replace").strip()[-400:]
                raise MeasureError(f"{commands}: {count} of {jobs} jobs done: {end}")
            time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - began
        cpu_seconds = _cpu_seconds(processes) - used
    return (jobs - first) / seconds, cpu_seconds / (jobs - first) * 1e6


def _program(
    command: list[str], output: Path, settings: dict[str, str]
) -> contextlib.AbstractContextManager[Program]:
    port = str(support.free_ports(1))
    defaults = {"HTTP_PORT": port, "PSP_URL": "http://127.0.0.1:1", "LOG_FORMAT": "json"}
    environ = {**os.environ, **defaults, **settings}
    return support.program([sys.executable, "-m", *command], environ=environ, output=output)


def _cpu_seconds(processes: list[Program]) -> float:
    return sum(sum(psutil.Process(one.pid).cpu_times()[:2]) for one in processes)


def _credits(client: store.Client) -> int:
    return int(client.llen(store.WHOLE.ledger(copies.USER_ID)))


def _connector(bench: Bench, jobs: int, module: str, **settings: str) -> float:
    """Transactions per second of one connector with default settings."""
    with bench.redis() as (url, client):
        copies.queued(client, jobs)
        done = partial(_credits, client)
        return _drained(bench, jobs, done, [module], REDIS_URL=url, **settings)[0]


def _queue(bench: Bench, name: str, threads: int, jobs: int) -> float:
    """Transactions per second of a job queue that does the same work."""
    command = ["bench.queues", name, str(jobs), str(threads)]
    with bench.redis() as (url, client):
        # One more than the jobs, because the original is not a job.
        copies.queued(client, jobs + 1)
        client.delete(store.WHOLE.queue)
        return _drained(bench, jobs, partial(_credits, client), command, REDIS_URL=url)[0]


@measures(Row("drain", "draining the queue, PSP in process", "/s", 1.5, 3))
def _drain(bench: Bench) -> Measured:
    details: Details = {}
    rates = {}
    for name, threads in QUEUES[: bench.plan.queues]:
        title = f"{name} ({threads} at a time)"
        try:
            rates[name, threads] = _queue(bench, name, threads, bench.plan.trial_jobs)
            details[f"{title} /s"] = round(rates[name, threads])
        except MeasureError as error:
            # Missing or incompatible in this package set: the others still give a floor.
            details[title] = "does not work"
            log(f"{title} skipped: {error}")
    if not rates:
        raise MeasureError("no job queue works: start it with ./nixw run .#bench")
    best = max(rates, key=lambda queue: rates[queue])
    jobs = bench.plan.drain_jobs
    samples = bench.interleaved(
        "drain",
        partial(_connector, bench, jobs, "bench.psp"),
        partial(_queue, bench, *best, jobs),
    )
    yield samples, {"best": best[0], **details}


@measures(Row("drain-sandbox", "draining the queue, sandbox over HTTP", "/s", 0.8, 0.9))
def _drain_sandbox(bench: Bench) -> Measured:
    jobs, url = bench.plan.sandbox_jobs, stacks.url(bench.platform, "psp-sandbox")
    connector = partial(_connector, bench, jobs, "services.psp_connector", PSP_URL=url)
    alone = partial(psp.rate, url, jobs, CONCURRENCY)
    yield bench.interleaved("drain-sandbox", connector, alone), {}


def _accept_us(client: store.Client, jobs: int, count: int = 1, replicas_min: int = 0) -> float:
    """Microseconds for each of `jobs` accepts in `count` partitions, one after the other."""
    transactions = Transactions(client, 10**9, store.partitions(count), replicas_min=replicas_min)
    began = time.perf_counter()
    for number in range(jobs):
        transactions.accept(number % _MERCHANTS, _REQUEST, "bench", None)
    return (time.perf_counter() - began) / jobs * 1e6


@measures(Row("partitions", "draining 16 partitions against 1, PSP in process", "/s", 0.4))
def _partitions(bench: Bench) -> Measured:
    """The details have connectors x partitions: payments a second, and the connectors' CPU time."""
    details: Details = {}
    jobs = bench.plan.drain_jobs // 2

    def drain(connectors: int, count: int) -> float:
        with bench.redis() as (url, client):
            _accept_us(client, jobs, count)

            def done() -> int:
                pipeline = client.pipeline(transaction=False)
                for one in store.partitions(count):
                    pipeline.xlen(one.queue)
                return jobs - int(sum(pipeline.execute()))

            settings = {"REDIS_URL": url, "PARTITIONS": str(count)}
            rate, cpu_us = _drained(bench, jobs, done, *[["bench.psp"]] * connectors, **settings)
        name = f"{connectors} x {count}"
        details.update({f"{name}: /s": round(rate), f"{name}: us": round(cpu_us)})
        return rate

    samples = bench.interleaved("partitions", partial(drain, 1, 16), partial(drain, 1, 1))
    for connectors, count in _OTHERS:
        drain(connectors, count)
    yield samples, details


@measures(Row("replica", "accepting with a replica's confirmation", "us", 2.5, at_most=True))
def _replica(bench: Bench) -> Measured:
    """REDIS_REPLICAS_MIN=1 against 0, one accept after the other, on the same pair of Redis."""
    jobs = bench.plan.drain_jobs // 4
    with bench.redis() as (url, client):
        port = url.rpartition(":")[2].partition("/")[0]
        with bench.redis("--replicaof", "127.0.0.1", port):
            support.wait_until(lambda: client.wait(1, 100) == 1, what="the replica")
            confirmed = partial(_accept_us, client, jobs, replicas_min=1)
            yield bench.interleaved("replica", confirmed, partial(_accept_us, client, jobs)), {}
