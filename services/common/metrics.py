"""Prometheus metrics of an HTTP service, served on its own port.

Each gunicorn worker counts in the file of its slot, which a replacement worker reuses
(`SharedCounters`); the worker that is scraped adds up all files.
https://prometheus.github.io/client_python/multiprocess/
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import falcon
import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Histogram,
    Metric,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from services.common.problems import Unavailable

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# Room for about 400 combinations of route, method and status; there are about 50.
_FILE_BYTES = 1024 * 1024
# From a cached response (1 ms) to the router's timeout (15 s).
DURATION_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15,
)  # fmt: skip
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_log = structlog.get_logger()


class _AllWorkers(Collector):
    """The sums of all workers. MultiProcessCollector itself would read its path as a pattern."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = map(str, Path(self._folder).iterdir())
        metrics: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return metrics


class HttpMetrics:
    """`GET /metrics`: request durations by method, route and status, and further collectors."""

    def __init__(self, collectors: Sequence[Collector] = ()) -> None:
        self._registry = CollectorRegistry()
        for collector in collectors:
            self._registry.register(collector)
        # Cache of `labels`, which converts all three to text and takes a lock on each call.
        self._cache: dict[tuple[str, str, int], Histogram] = {}
        self._durations = Histogram(
            "http_request_duration_seconds",
            "Requests by method, route and status",
            ["method", "route", "status"],
            buckets=DURATION_BUCKETS_SECONDS,
            registry=self._registry,
        )

    def observe(self, req: falcon.Request, resp: falcon.Response, seconds: float) -> None:
        """Counts a request; never raises, because the request may already have had its effect."""
        # The set of labels is bounded, whatever clients send.
        method = req.method if req.method in _METHODS else "other"
        labels = (method, req.uri_template or "none", resp.status_code)
        try:
            durations = self._cache.get(labels)
            if durations is None:
                durations = self._cache[labels] = self._durations.labels(*labels)
            durations.observe(seconds)
        except Exception as error:  # noqa: BLE001  any failure of the metrics library
            _log.warning("could not count request", reason=repr(error))

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        registry = self._registry
        try:
            if folder := os.environ.get(_FOLDER):
                registry = CollectorRegistry()
                registry.register(_AllWorkers(folder))
            resp.data = generate_latest(registry)
        except Exception as error:  # noqa: BLE001  files removed, or truncated by a full disk
            _log.warning("could not read metrics", reason=repr(error))
            raise Unavailable("The counters cannot be read until the next start.") from None
        resp.content_type = CONTENT_TYPE_LATEST


class SharedCounters:
    """The metrics folder shared by the workers of one gunicorn, and the gunicorn hooks for it.

    Inside the stack's state folder, so that the next start clears files left by a kill; a temporary
    folder for a service that runs elsewhere.
    """

    def __init__(self, port: int) -> None:
        state = os.environ.get("PLATFORM_STATE")
        self._folder = (
            Path(state, "metrics", str(port)).absolute()
            if state
            else Path(tempfile.mkdtemp(prefix="metrics-"))
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        # A folder in the state folder may belong to another process until this one has the port.
        self._owner = 0 if state else os.getpid()
        self._taken: set[int] = set()
        self._slot: int | None = -1
        os.environ[_FOLDER] = str(self._folder)
        # By slot, not process id: one file for each concurrent worker.
        values.ValueClass = values.MultiProcessValue(self._slot_of_process)  # type: ignore[no-untyped-call]

    def when_ready(self, _arbiter: Any) -> None:
        """Removes counters of earlier processes: this one holds the port, so none of them runs."""
        self._owner = os.getpid()
        for path in self._folder.glob("*.db"):
            path.unlink(missing_ok=True)

    def pre_fork(self, _arbiter: Any, worker: Any) -> None:
        """Assigns a new worker the lowest free slot."""
        slot = next(slot for slot in itertools.count() if slot not in self._taken)
        self._taken.add(slot)
        self._slot = worker.slot = slot
        try:
            with (self._folder / f"histogram_{slot}.db").open("ab") as file:
                # Else a full disk would kill the worker (SIGBUS) when it writes to the mapped file.
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)
        except OSError as error:
            _log.warning("metrics disabled", reason=str(error))
            self._slot = None

    def child_exit(self, _arbiter: Any, worker: Any) -> None:
        """Frees the worker's slot; the next worker continues its file."""
        self._taken.discard(worker.slot)

    def remove(self) -> None:
        """Removes the folder when the process that owns it ends."""
        # Workers call this on exit, too.
        if os.getpid() == self._owner:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _slot_of_process(self) -> int:
        if self._slot is None:
            raise OSError("no disk space for the counters")
        return self._slot
