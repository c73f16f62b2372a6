"""Rates and latencies of the last 15 minutes, from the services' own `/metrics`."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from devtools.catalog import PYTHON, SERVICES
from devtools.supervisor import Supervisor, SupervisorError
from services.common.metrics import DURATION_BUCKETS_SECONDS

INTERVAL_SECONDS = 5
POINTS_MAX = 15 * 60 // INTERVAL_SECONDS
SCRAPED = tuple(PYTHON)
_RESPONSE_SECONDS_MAX = 2.0
# Requested by probes and by the console itself.
_UNCOUNTED = ("/health", "/metrics", "/_sandbox/")
_BUCKETS = (*map(float, DURATION_BUCKETS_SECONDS), float("inf"))


@dataclass(frozen=True)
class Point:
    """One interval: the increments of each service's counters (see `read`)."""

    at: float
    seconds: float
    services: Mapping[str, Counter[str]]

    def rates(self, name: str) -> dict[str, float]:
        """A counter's increments per second, by service."""
        return {service: counts[name] / self.seconds for service, counts in self.services.items()}

    def total(self, name: str) -> float:
        """A counter's increments per second, of all services together."""
        return sum(self.rates(name).values())

    def quantiles_ms(self, share: float) -> dict[str, float | None]:
        """A quantile of the requests' durations, by service; None without requests."""
        return {service: quantile_ms(counts, share) for service, counts in self.services.items()}


class Rates:
    """Reads the counters every INTERVAL_SECONDS and keeps their increments."""

    def __init__(self, first_port: int, supervisor: Supervisor) -> None:
        self._first_port = first_port
        self._supervisor = supervisor
        self._http = httpx.Client(trust_env=False, verify=False, timeout=_RESPONSE_SECONDS_MAX)  # noqa: S501 - no TLS on loopback
        self._before: dict[str, Counter[str]] = {}
        self._read_at = 0.0
        self.points: deque[Point] = deque(maxlen=POINTS_MAX)

    @property
    def latest(self) -> Point:
        """The latest interval; an empty one at the start."""
        return self.points[-1] if self.points else Point(0, 1, {})

    def step(self) -> None:
        """Reads all processes once."""
        now = time.time()
        increments: dict[str, Counter[str]] = defaultdict(Counter)
        for process, service, url in self._targets():
            try:
                counts = read(self._http.get(url).text)
            except (httpx.HTTPError, ValueError):
                continue
            # A new process has no rates for one interval; a Counter's difference omits negative
            # values, as after a restart.
            increments[service].update(counts - self._before.get(process, counts))
            self._before[process] = counts
        if self._read_at and now > self._read_at:
            self.points.append(Point(now, now - self._read_at, increments))
        self._read_at = now

    def _targets(self) -> list[tuple[str, str, str]]:
        try:
            states = self._supervisor.processes()
        except SupervisorError:
            states = []
        return [
            (
                state.name,
                state.service,
                f"{SERVICES[state.service].url(self._first_port, state.replica)}/metrics",
            )
            for state in states
            if state.is_running and state.service in SCRAPED
        ]


def read(text: str) -> Counter[str]:
    """The counters in a Prometheus text.

    For requests: `all`, `errors` (5xx), `accepted` (payments), and each bucket by its upper bound.
    For the connector: each outcome of its attempts, and `psp` for its calls of the PSP.

    Raises:
        ValueError: not in Prometheus' format.
    """
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if labels.get("route", "").startswith(_UNCOUNTED):
                continue
            if name == "http_request_duration_seconds_bucket":
                counts[str(float(labels["le"]))] += int(value)
            elif name == "http_request_duration_seconds_count":
                counts["all"] += int(value)
                if labels["status"].startswith("5"):
                    counts["errors"] += int(value)
                elif (labels["status"], labels["method"]) == ("202", "POST"):
                    counts["accepted"] += int(value)
            elif name == "psp_attempts_total":
                counts[labels["outcome"]] += int(value)
            elif name == "psp_request_duration_seconds_count":
                counts["psp"] += int(value)
    return counts


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
