"""Rates from the services' own metrics."""

from types import SimpleNamespace
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from devtools.console.overview import read_nodes
from devtools.console.rates import Rates, quantile_ms, read
from devtools.supervisor import ProcessState, SupervisorError
from services.common.metrics import DURATION_BUCKETS_SECONDS


def test_requests_and_outcomes_are_counted() -> None:
    """Errors are 5xx, accepted is 202; probes and the console's own requests do not count."""
    registry = CollectorRegistry()
    names = "http_request_duration_seconds", "", ["method", "route", "status"]
    durations = Histogram(*names, buckets=DURATION_BUCKETS_SECONDS, registry=registry)
    attempts = Counter("psp_attempts", "", ["outcome"], registry=registry)
    for method, route, status, count in (
        ("POST", "/", "202", 3), ("GET", "/{id}", "200", 2), ("POST", "/", "503", 1),
        ("GET", "/health", "200", 9), ("GET", "/_sandbox/faults", "200", 9),
    ):  # fmt: skip
        for _ in range(count):
            durations.labels(method, route, status).observe(0.004)
    attempts.labels("captured").inc(2)
    counts = read(generate_latest(registry).decode())
    expected = {"all": 6, "errors": 1, "accepted": 3, "captured": 2}
    assert {name: counts[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ({}, 0.5, None),
        ({"all": 10, "0.005": 10, "0.01": 10, "inf": 10}, 0.5, 3.75),
        ({"all": 100, "0.01": 50, "0.025": 100, "inf": 100}, 0.99, 24.7),
        ({"all": 4, "15.0": 0, "inf": 4}, 0.99, 15_000),
    ],
)
def test_a_quantile_matches_prometheus(
    counts: dict[str, int], share: float, expected: float | None
) -> None:
    """The quantile is linear within a bucket; above the last bound, it is that bound."""
    cumulative, below = dict(counts), 0
    for bound in (*DURATION_BUCKETS_SECONDS, float("inf")):
        below = cumulative.setdefault(str(float(bound)), below)
    found = quantile_ms(cumulative if counts else {}, share)
    assert found == (expected if expected is None else pytest.approx(expected, rel=0.02))


class Away:
    """A process-compose and a Redis that do not respond."""

    def processes(self) -> list[ProcessState]:
        raise SupervisorError("away")

    def gauges(self) -> dict[str, float]:
        raise redis.ConnectionError


def test_a_stopped_stack_is_no_error() -> None:
    """There is a point without services, and the picture shows them as down."""
    rates = Rates(1, Away())  # type: ignore[arg-type]
    rates.step()
    rates.step()
    assert [point.services for point in rates.points] == [{}]
    sources: Any = SimpleNamespace(rates=rates, supervisor=Away(), gauges=Away().gauges)
    nodes = read_nodes(sources)
    assert {name for name, node in nodes.items() if node.is_up} == {"merchant"}
    assert [node.note for node in nodes.values()].count("not up") == 4
