"""Metrics in Prometheus' text format, for whoever scrapes a service's own port.

gunicorn's workers each count for themselves, in a file per worker slot that the worker in the place
of a killed one goes on with (`SharedCounters`); the worker that is asked adds them up.
prometheus-client decides where to count when it is first imported, so it is imported here, inside
functions, and not above. https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from services.common.problems import Unavailable

if TYPE_CHECKING:
    import falcon
    from prometheus_client.registry import Collector

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# Some 400 routes with their methods and statuses; there are about 50.
_FILE_BYTES = 1024 * 1024
# From an answer out of memory (1 ms) to the router's patience (15 s).
DURATION_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15,
)  # fmt: skip
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_log = structlog.get_logger()


class HttpMetrics:
    """Requests of one app by method, route and status, with their durations."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Histogram  # noqa: PLC0415

        self.registry = CollectorRegistry()
        # Looked up here: `labels` makes texts of all three and takes a lock each time.
        self._seen: dict[tuple[str, str, int], Histogram] = {}
        self._durations = Histogram(
            "http_request_duration_seconds",
            "Requests by method, route and status",
            ["method", "route", "status"],
            buckets=DURATION_BUCKETS_SECONDS,
            registry=self.registry,
        )

    def observe(self, req: falcon.Request, resp: falcon.Response, seconds: float) -> None:
        """Counts an answered request. The labels are few, whatever clients send.

        Never raises: the answer stands, and what it says may have been done.
        """
        try:
            self._observe(req, resp, seconds)
        except Exception as error:  # noqa: BLE001  whatever it is
            _log.warning("request not counted", reason=repr(error))

    def _observe(self, req: falcon.Request, resp: falcon.Response, seconds: float) -> None:
        method = req.method if req.method in _METHODS else "other"
        route = req.uri_template or "none"
        labels = (method, route, resp.status_code)
        durations = self._seen.get(labels)
        if durations is None:
            durations = self._seen[labels] = self._durations.labels(*labels)
        durations.observe(seconds)


class MetricsResource:
    """`GET /metrics`. The router does not lead here."""

    def __init__(self, metrics: HttpMetrics, *collectors: Collector) -> None:
        self._registry = metrics.registry
        for collector in collectors:
            self._registry.register(collector)

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        from prometheus_client import (  # noqa: PLC0415
            CONTENT_TYPE_LATEST,
            CollectorRegistry,
            generate_latest,
            multiprocess,
        )

        registry = self._registry
        try:
            if os.environ.get(_FOLDER):
                registry = CollectorRegistry()
                multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            resp.data = generate_latest(registry)
        except Exception as error:  # noqa: BLE001  files that were removed, or cut off by a full disk
            _log.warning("metrics not readable", reason=repr(error))
            raise Unavailable("The counters cannot be read until the next start.") from None
        resp.content_type = CONTENT_TYPE_LATEST


class SharedCounters:
    """The folder in which the workers of one gunicorn count together, and its hooks for that.

    In the state folder of a stack, so that what a kill leaves is cleared by the next start; for a
    service that runs elsewhere, a temporary one.
    """

    def __init__(self, port: int) -> None:
        state = os.environ.get("PLATFORM_STATE")
        self._folder = (
            Path(state, "metrics", str(port)).absolute()
            if state
            else Path(tempfile.mkdtemp(prefix="metrics-"))
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._owner = os.getpid()
        self._taken: set[int] = set()
        self._slot: int | None = -1
        os.environ[_FOLDER] = str(self._folder)
        from prometheus_client import values  # noqa: PLC0415

        # By slot and not by process id: the files are as many as there are workers at a time.
        values.ValueClass = values.MultiProcessValue(self._slot_of_process)  # type: ignore[no-untyped-call]

    def when_ready(self, _arbiter: Any) -> None:
        """Removes counters of earlier processes: none of them runs, for this one has the port."""
        for path in self._folder.glob("*.db"):
            path.unlink(missing_ok=True)

    def pre_fork(self, _arbiter: Any, worker: Any) -> None:
        """Gives a new worker the lowest slot that is free, and its file all the disk it needs.

        A worker that wrote to a page of its file that finds no disk would be killed (SIGBUS).
        """
        slot = next(slot for slot in itertools.count() if slot not in self._taken)
        self._taken.add(slot)
        worker.slot = slot
        self._slot = slot
        try:
            with (self._folder / f"histogram_{slot}.db").open("ab") as file:
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)
        except OSError as error:
            _log.warning("metrics are off", reason=str(error))
            self._slot = None

    def child_exit(self, _arbiter: Any, worker: Any) -> None:
        """The worker is gone; the next one goes on with its file."""
        self._taken.discard(worker.slot)

    def remove(self) -> None:
        """Removes the folder at the end of the process that made it."""
        # A worker ends by this way too, and the others go on counting.
        if os.getpid() == self._owner:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _slot_of_process(self) -> int:
        if self._slot is None:
            raise OSError("no disk for the counters")
        return self._slot
