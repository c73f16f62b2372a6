"""Metrics in Prometheus' text format, for whoever scrapes a service's own port.

gunicorn's workers each count for themselves, in files of a folder they share
(`share_between_workers`); the worker that is asked adds them up. prometheus-client decides where
to count when it is first imported, so it is imported here, inside functions, and not above.
https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import falcon
    from prometheus_client.registry import Collector

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# From an answer out of memory (1 ms) to the router's patience (15 s).
DURATION_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15,
)  # fmt: skip
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


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
        """Counts an answered request. The labels are few, whatever clients send."""
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
        if os.environ.get(_FOLDER):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        resp.content_type = CONTENT_TYPE_LATEST
        resp.data = generate_latest(registry)


@contextlib.contextmanager
def share_between_workers() -> Iterator[None]:
    """Lets the workers that are forked inside count together."""
    owner = os.getpid()
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="metrics-")
    # `worker_ended` is called out of a signal handler: one signal during its import, and the next
    # call would find half a module.
    from prometheus_client import multiprocess  # noqa: F401, PLC0415

    try:
        yield
    finally:
        # A worker leaves by this way too, and the others go on counting.
        if os.getpid() == owner:
            shutil.rmtree(os.environ[_FOLDER], ignore_errors=True)


def worker_ended(_server: Any, worker: Any) -> None:
    """For gunicorn's `child_exit`: what the worker has counted stays in the sums."""
    from prometheus_client import multiprocess  # noqa: PLC0415

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
