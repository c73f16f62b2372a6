"""Rates and latencies of the last 15 minutes, from the services' own `/metrics`."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
from prometheus_client.parser import text_string_to_metric_families

from devtools.catalog import SERVICES
from devtools.supervisor import SupervisorError
from services.common.metrics import DURATION_BUCKETS_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devtools.supervisor import ProcessState, Supervisor

INTERVAL_SECONDS = 5
POINTS_MAX = 15 * 60 // INTERVAL_SECONDS
SCRAPED = tuple(service.name for service in SERVICES.values() if service.packages)
OUTCOMES = ("accepted", "captured", "declined", "failed", "retry")
_ANSWER_SECONDS_MAX = 2.0
# Requested by probes and by the console itself.
_UNCOUNTED = ("/health", "/metrics", "/_sandbox/")
_BUCKETS = (*map(float, DURATION_BUCKETS_SECONDS), float("inf"))


@dataclass
class Reading:
    """The counters of one process; the sum of readings is a Counter each."""

    requests: Counter[str] = field(default_factory=Counter)
    """`all`, `errors` (5xx), and one for each bucket by its upper bound."""
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Load:
    """A service within one interval: per second, and milliseconds (None without requests)."""

    requests: float
    errors: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Point:
    """One interval."""

    at: float
    services: Mapping[str, Load]
    outcomes: Mapping[str, float]
    """Per second: OUTCOMES, and `psp` for calls of the connector at the PSP."""


class Rates:
    """Reads the counters every INTERVAL_SECONDS and keeps what they grew by."""

    def __init__(self, first_port: int, supervisor: Supervisor) -> None:
        self._first_port = first_port
        self._supervisor = supervisor
        self._http = httpx.Client(trust_env=False, verify=False, timeout=_ANSWER_SECONDS_MAX)  # noqa: S501 - no TLS on loopback
        self._before: dict[str, Reading] = {}
        self._read_at = 0.0
        self.points: deque[Point] = deque(maxlen=POINTS_MAX)

    @property
    def latest(self) -> Point | None:
        """The latest interval."""
        return self.points[-1] if self.points else None

    def step(self) -> None:
        """Reads all processes once."""
        now = time.time()
        readings = {}
        for process, service, port in self._targets():
            try:
                text = self._http.get(f"http://127.0.0.1:{port}/metrics").text
                readings[process] = service, read(text)
            except (httpx.HTTPError, ValueError):
                continue
        seconds = now - self._read_at
        grown = {
            process: (service, _growth(self._before.get(process), reading))
            for process, (service, reading) in readings.items()
        }
        if self._read_at and seconds > 0:
            self.points.append(_point(now, seconds, grown.values()))
        self._before.update({process: reading for process, (_, reading) in readings.items()})
        self._read_at = now

    def _targets(self) -> list[tuple[str, str, int]]:
        try:
            states = self._supervisor.processes()
        except SupervisorError:
            states = []
        running = [state for state in states if state.is_running and state.service in SCRAPED]
        return [(state.name, state.service, _port(state, self._first_port)) for state in running]


def _port(state: ProcessState, first_port: int) -> int:
    return SERVICES[state.service].port(first_port, state.replica)


def read(text: str) -> Reading:
    """The counters in a Prometheus text.

    Raises:
        ValueError: it is none.
    """
    reading = Reading()
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if labels.get("route", "").startswith(_UNCOUNTED):
                continue
            if name == "http_request_duration_seconds_bucket":
                reading.requests[str(float(labels["le"]))] += int(value)
            elif name == "http_request_duration_seconds_count":
                status, count = labels["status"], int(value)
                reading.requests["all"] += count
                reading.requests["errors"] += count if status.startswith("5") else 0
                accepted = status == "202" and labels["method"] == "POST"
                reading.outcomes["accepted"] += count if accepted else 0
            elif name == "psp_attempts_total":
                reading.outcomes[labels["outcome"]] += int(value)
            elif name == "psp_request_duration_seconds_count":
                reading.outcomes["psp"] += int(value)
    return reading


def _growth(before: Reading | None, now: Reading) -> Reading:
    """What was counted meanwhile; of a process that has restarted, nothing for one interval."""
    if before is None:
        return Reading()
    # A Counter's difference leaves out what is not positive.
    return Reading(now.requests - before.requests, now.outcomes - before.outcomes)


def _point(at: float, seconds: float, grown: Iterable[tuple[str, Reading]]) -> Point:
    requests: dict[str, Counter[str]] = {}
    outcomes: Counter[str] = Counter()
    for service, reading in grown:
        requests.setdefault(service, Counter()).update(reading.requests)
        outcomes.update(reading.outcomes)
    services = {
        service: Load(
            requests=counts["all"] / seconds,
            errors=counts["errors"] / seconds,
            p50_ms=quantile_ms(counts, 0.5),
            p99_ms=quantile_ms(counts, 0.99),
        )
        for service, counts in requests.items()
    }
    return Point(at, services, {name: count / seconds for name, count in outcomes.items()})


def quantile_ms(counts: Mapping[str, int], share: float) -> float | None:
    """As Prometheus' histogram_quantile: linear within the bucket. None without requests."""
    total = counts.get("all", 0)
    if not total:
        return None
    rank, lower, below = share * total, 0.0, 0
    for bound in _BUCKETS:
        count = counts.get(str(bound), 0)
        if count >= rank and count > below:
            upper = bound if bound != float("inf") else lower
            return (lower + (upper - lower) * (rank - below) / (count - below)) * 1000
        lower, below = bound, count
    return lower * 1000
