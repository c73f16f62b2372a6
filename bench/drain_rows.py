"""Transactions per second while draining a full queue."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import httpx
import redis

from bench import copies, queues
from bench.errors import MeasureError
from bench.figures import Goal
from bench.rows import Bench, Row, interleaved
from bench.started import VARIABLE
from services.common import store
from services.psp_connector.settings import ConnectorSettings
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.figures import Result

CONCURRENCY: int = ConnectorSettings.model_fields["concurrency"].default
_DRAIN_SECONDS_MAX = 120
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Contender:
    """A job queue and its concurrency."""

    name: str
    concurrency: int

    def __str__(self) -> str:
        return f"{self.name} ({self.concurrency} at a time)"


class Drains:
    """A separate Redis as shipped, and the programs that drain it."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._client: store.Client = redis.Redis(port=port, decode_responses=True)
        self._log = folder / "drain.log"

    def connector(self, jobs: int, psp: str, **environ: str) -> float:
        """Transactions per second of one connector with default settings."""
        with contextlib.closing(self._client) as client:
            client.flushall()
            copies.queued(client, jobs)
        return self._drained(["bench.connector", psp], jobs, environ)

    def queue(self, contender: Contender, jobs: int) -> float:
        """Transactions per second of a job queue that does the same work."""
        with contextlib.closing(self._client) as client:
            client.flushall()
            # One more than the jobs: the original is not a job.
            copies.queued(client, jobs + 1)
            client.delete(store.QUEUE)
        words = [contender.name, str(jobs), str(contender.concurrency)]
        return self._drained(["bench.queues", *words], jobs, {})

    def _drained(self, words: Sequence[str], jobs: int, environ: Mapping[str, str]) -> float:
        started = self._folder / "started"
        started.unlink(missing_ok=True)
        given = dict(os.environ) | {
            "REDIS_URL": f"redis://127.0.0.1:{self._port}/0",
            "HTTP_PORT": str(support.free_ports(1)),
            "PSP_URL": "http://127.0.0.1:1",
            "LOG_FORMAT": "json",
            VARIABLE: str(started),
            **environ,
        }
        command = [sys.executable, "-m", *words]
        with support.program(command, environ=given, output=self._log) as process:
            ended = self._wait(process, jobs, words)
        return jobs / (ended - float(started.read_text()))

    def _wait(self, process: subprocess.Popen[bytes], jobs: int, words: Sequence[str]) -> float:
        """The time of the last credit in the ledger."""
        deadline = time.monotonic() + _DRAIN_SECONDS_MAX
        while self._client.llen(store.ledger_key(copies.USER_ID)) < jobs:
            if process.poll() is not None or time.monotonic() > deadline:
                done = self._client.llen(store.ledger_key(copies.USER_ID))
                end = self._log.read_text(errors="replace").strip()[-400:]
                raise MeasureError(f"{' '.join(words)}: {done} of {jobs} jobs done: {end}")
            time.sleep(_POLL_SECONDS)
        return time.time()


@contextlib.contextmanager
def _drains(bench: Bench) -> Iterator[Drains]:
    port = support.free_ports(1)
    folder = bench.folder / f"drain-{port}"
    with support.redis_server(folder, port):
        yield Drains(folder, port)


def _contenders(wanted: Sequence[str]) -> list[Contender]:
    """Each with the connector's concurrency; where less may be faster, also with one."""
    found = []
    for name in wanted or queues.QUEUES:
        if find_spec(name) is None:
            continue
        if name == "rq":  # has no other within one process
            found.append(Contender(name, 1))
        elif name in queues.COROUTINES:
            found.append(Contender(name, CONCURRENCY))
        else:
            found += [Contender(name, 1), Contender(name, CONCURRENCY)]
    return found


def _drain(bench: Bench, row: Row) -> Result:
    plan = bench.plan
    contenders = _contenders(plan.queues)
    if not contenders:
        raise MeasureError("no job queue is installed: start it with ./nixw run .#bench")
    with _drains(bench) as drains:
        trials = _trials(bench, row, drains, contenders)
        best = max(trials, key=lambda contender: trials[contender])
        samples = interleaved(
            bench,
            row,
            partial(drains.connector, plan.drain_jobs, "instant"),
            partial(drains.queue, best, plan.drain_jobs),
        )
    details = {f"{contender} /s": round(rate) for contender, rate in trials.items()}
    missing = [name for name in queues.QUEUES if find_spec(name) is None]
    absent = {"not in this package set": " ".join(missing)} if missing else {}
    return row.result(samples, {"best": str(best), **details, **absent})


def _trials(
    bench: Bench, row: Row, drains: Drains, contenders: Sequence[Contender]
) -> dict[Contender, float]:
    trials = {}
    for contender in contenders:
        try:
            trials[contender] = drains.queue(contender, bench.plan.trial_jobs)
        except MeasureError as error:
            # An incompatible version: the others still are a floor.
            bench.tell(f"{row.name:<16} {contender} skipped: {error}")
        else:
            bench.tell(f"{row.name:<16} {trials[contender]:,.0f} /s by {contender}")
    if not trials:
        raise MeasureError("no job queue worked")
    return trials


def _drain_sandbox(bench: Bench, row: Row) -> Result:
    jobs = bench.plan.sandbox_jobs
    with _drains(bench) as drains, _sandbox(bench) as url:
        samples = interleaved(
            bench,
            row,
            partial(drains.connector, jobs, "sandbox", PSP_URL=url),
            lambda: _psp_alone(url, jobs),
        )
    return row.result(samples)


@contextlib.contextmanager
def _sandbox(bench: Bench) -> Iterator[str]:
    port = support.free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environ = dict(os.environ) | {
        "HTTP_PORT": str(port),
        "LOG_FORMAT": "json",
        "SANDBOX_DATABASE": str(bench.folder / f"sandbox-{port}.sqlite"),
    }
    command = [sys.executable, "-m", "services.psp_sandbox"]
    with support.program(command, environ=environ, output=bench.folder / "sandbox.log"):
        support.wait_until(lambda: _answers(url), seconds_max=30, what="the sandbox")
        yield url


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def _psp_alone(url: str, charges: int) -> float:
    command = [sys.executable, "-m", "bench.psp_alone", str(charges), str(CONCURRENCY)]
    done = subprocess.run(
        command, env=dict(os.environ) | {"PSP_URL": url}, cwd=support.ROOT, capture_output=True,
        text=True, timeout=_DRAIN_SECONDS_MAX, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise MeasureError(f"the PSP client alone: {done.stderr.strip()[-400:]}")
    return float(done.stdout)


ROWS = (
    Row(
        "drain",
        "draining the queue, PSP in process",
        "the best job queue doing the same work in Redis, one process, no more at a time",
        "/s",
        "ratio",
        Goal(goal=1.5, beyond=3.0),
        _drain,
    ),
    Row(
        "drain-sandbox",
        "draining the queue, sandbox over HTTP",
        "the PSP client alone against the sandbox, same concurrency",
        "/s",
        "ratio",
        Goal(goal=0.8, beyond=0.9),
        _drain_sandbox,
    ),
)
