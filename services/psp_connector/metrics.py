"""The connector's metrics: its own counters, and queue depths read from Redis on scrape."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily

from services.common import redis_client, store
from services.common.transaction import FINAL

_PSP_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# No partition is read after this. Even if the last one times out, a scrape takes less than
# Prometheus' limit of 10 s.
COLLECT_SECONDS_MAX = 3.0

_GAUGES = (
    ("queue_entries", "Queue entries, including those in flight"),
    ("queue_retries", "Transactions waiting for their next attempt"),
    ("queue_dead_letters", "Dead letters"),
    ("queue_oldest_entry_age_seconds", "Age of the queue's oldest entry"),
)


class Attempts:
    """Attempts by outcome, durations of PSP calls, and whether charging is paused."""

    def __init__(self) -> None:
        self.outcomes = Counter("psp_attempts", "Attempts by outcome", ["outcome"], registry=None)
        # Start at 0: a rate misses the first increments of a counter that appears later.
        for outcome in (*sorted(FINAL), "retry"):
            self.outcomes.labels(outcome)
        self.seconds = Histogram(
            "psp_request_duration_seconds",
            "Calls at the PSP",
            buckets=_PSP_BUCKETS_SECONDS,
            registry=None,
        )
        self.paused = Gauge("psp_paused", "1 while the PSP is unavailable, else 0", registry=None)


class QueueCollector:
    """Queue depths and age, read on scrape.

    Unavailable partitions are omitted, and so are those not reached within COLLECT_SECONDS_MAX.
    """

    def __init__(self, client: store.Client, partitions: Sequence[store.Partition]) -> None:
        self._redis = client
        self._partitions = partitions

    def collect(self) -> Iterator[Metric]:
        """Reads four gauges in one round trip for each partition."""
        labels = ["partition"] if len(self._partitions) > 1 else []
        gauges = [GaugeMetricFamily(name, what, labels=labels) for name, what in _GAUGES]
        deadline = time.monotonic() + COLLECT_SECONDS_MAX
        for partition in self._partitions:
            if time.monotonic() > deadline:
                break
            with contextlib.suppress(*redis_client.ERRORS):
                for gauge, value in zip(gauges, self._read(partition), strict=True):
                    gauge.add_metric([str(partition.number)] if labels else [], value)
        yield from gauges

    def _read(self, partition: store.Partition) -> tuple[float, ...]:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xlen(partition.queue)
            pipeline.zcard(partition.retries)
            pipeline.xlen(partition.deadletters)
            pipeline.xrange(partition.queue, count=1)
            queued, waiting, dead, oldest = pipeline.execute()
        age_seconds = 0.0
        if oldest:
            age_seconds = max(time.time() - int(oldest[0][0].partition("-")[0]) / 1000, 0.0)
        return queued, waiting, dead, age_seconds
