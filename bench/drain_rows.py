"""Transactions per second while draining a full queue."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from bench import copies, psp, stacks
from bench.results import Details, MeasureError, Row, Sample
from bench.rows import Bench, log, measures
from services.common import store
from services.psp_connector.settings import ConnectorSettings
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    Measured = Iterator[tuple[list[Sample], Details]]

CONCURRENCY: int = ConnectorSettings.model_fields["concurrency"].default
# With the connector's concurrency and, where that may be faster, with one thread; RQ has one in
# each process. The fastest of earlier full runs come first.
QUEUES = (
    ("dramatiq", 1), ("dramatiq", CONCURRENCY), ("taskiq", CONCURRENCY), ("saq", CONCURRENCY),
    ("huey", 1), ("huey", CONCURRENCY), ("celery", 1), ("celery", CONCURRENCY), ("rq", 1),
)  # fmt: skip
_DRAIN_SECONDS_MAX = 120
_POLL_SECONDS = 0.005


def _connector(bench: Bench, jobs: int, module: str, psp_url: str = "http://127.0.0.1:1") -> float:
    """Transactions per second of one connector with default settings."""
    stacks.flush(bench.platform)
    with contextlib.closing(bench.platform.redis()) as client:
        copies.queued(client, jobs)
    return _drained(bench, jobs, module, PSP_URL=psp_url)


def _queue(bench: Bench, name: str, threads: int, jobs: int) -> float:
    """Transactions per second of a job queue that does the same work."""
    stacks.flush(bench.platform)
    with contextlib.closing(bench.platform.redis()) as client:
        # One more than the jobs, because the original is not a job.
        copies.queued(client, jobs + 1)
        client.delete(store.WHOLE.queue)
    return _drained(bench, jobs, "bench.queues", name, str(jobs), str(threads))


def _drained(bench: Bench, jobs: int, *command: str, **settings: str) -> float:
    """Credits in the ledger per second, between the first ones seen and the last."""
    output = bench.folder / "drain.log"
    output.unlink(missing_ok=True)
    environ = {
        **os.environ,
        "REDIS_URL": (bench.platform.state / "redis-url").read_text().strip(),
        "HTTP_PORT": str(support.free_ports(1)),
        "LOG_FORMAT": "json",
        **settings,
    }
    deadline = time.monotonic() + _DRAIN_SECONDS_MAX
    first, began = 0, 0.0
    with (
        support.program(
            [sys.executable, "-m", *command], environ=environ, output=output
        ) as process,
        contextlib.closing(bench.platform.redis()) as client,
    ):
        while (done := client.llen(store.WHOLE.ledger(copies.USER_ID))) < jobs:
            if done and not first:
                first, began = done, time.monotonic()
            if process.poll() is not None or time.monotonic() > deadline:
                end = output.read_text(errors="replace").strip()[-400:]
                raise MeasureError(f"{' '.join(command)}: {done} of {jobs} jobs done: {end}")
            time.sleep(_POLL_SECONDS)
        return (jobs - first) / (time.monotonic() - began)


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
    connector = partial(_connector, bench, jobs, "services.psp_connector", url)
    yield (
        bench.interleaved("drain-sandbox", connector, partial(psp.rate, url, jobs, CONCURRENCY)),
        {},
    )
