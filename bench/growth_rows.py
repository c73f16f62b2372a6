"""The cost of accepting, finishing and listing with a full Redis and with a small one.

All transactions belong to one user, the worst case: index and ledger have an entry for each.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import redis

from bench import copies
from bench.errors import MeasureError
from bench.figures import Goal, Sample
from bench.rows import Bench, Row, tell_sample
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector.queue import Queue
from services.psp_connector.results import FinalResult
from services.psp_connector.settings import ConnectorSettings
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.figures import Result

_PAGE = 20
# As shipped, Redis refuses writes at 1 GB; the details report the size of a million.
_OPTIONS = ("--maxmemory", "0", "--auto-aof-rewrite-percentage", "0")


@dataclass
class Side:
    """A Redis with a given number of transactions, and the services' clients of it."""

    client: Any
    count: int
    queue: Queue = field(init=False)
    transactions: Transactions = field(init=False)

    def __post_init__(self) -> None:
        settings = ConnectorSettings.read(
            {"REDIS_URL": "redis://127.0.0.1:1", "PSP_URL": "http://127.0.0.1:1", "HTTP_PORT": "1"}
        )
        self.transactions = Transactions(self.client, 10**9)
        self.queue = Queue(self.client, settings, "bench")
        self.queue.join()
        copies.finished(self.client, self.count, self.finish)

    def accept(self) -> float:
        """Seconds to accept one."""
        wanted = TransactionRequest(amount=1250, currency="USD")
        request_id = str(uuid.uuid4())
        return _seconds(lambda: self.transactions.accept(copies.USER_ID, wanted, request_id, None))

    def finish(self) -> float:
        """Seconds to finish the one in the queue."""
        works = self.queue.begin(self.queue.read(1, 100))
        if len(works) != 1:
            raise MeasureError("the queue returned another transaction than the accepted one")
        ending = FinalResult("captured", psp_reference=f"pi_{uuid.uuid4()}", points=12)
        return _seconds(lambda: self.queue.save([(works[0], ending)]))

    def page(self) -> float:
        """Seconds to list the newest."""
        return _seconds(lambda: self.transactions.page(copies.USER_ID, _PAGE, None))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@contextlib.contextmanager
def _sides(bench: Bench) -> Iterator[tuple[Side, Side]]:
    with contextlib.ExitStack() as ending:
        sides = []
        for count in (bench.plan.growth_small, bench.plan.growth_large):
            bench.tell(f"{'growth':<16} storing {count:,} transactions")
            port = support.free_ports(1)
            folder = bench.folder / f"growth-{port}"
            ending.enter_context(support.redis_server(folder, port, *_OPTIONS))
            client = ending.enter_context(redis.Redis(port=port, decode_responses=True))
            sides.append(Side(client, count))
        yield sides[0], sides[1]


@dataclass(frozen=True)
class Growth:
    """Samples of each call in microseconds, and the memory of the full Redis."""

    samples: dict[str, list[Sample]]
    bytes_each: float


def _growth(bench: Bench) -> Growth:
    """All rows share the same two servers."""
    found: dict[str, list[Sample]] = {name: [] for name in _CALLS}
    with _sides(bench) as (small, large):
        _round(small, large, bench.plan.growth_calls // 5)
        for _number in bench.rounds(bench.plan.rounds):
            for name, sample in _round(small, large, bench.plan.growth_calls).items():
                found[name].append(sample)
        used = [side.client.info("memory")["used_memory"] for side in (small, large)]
    return Growth(found, (used[1] - used[0]) / (large.count - small.count))


_CALLS: dict[str, Callable[[Side], float]] = {
    "accept": Side.accept,
    "finish": Side.finish,
    "list": Side.page,
}


def _round(small: Side, large: Side, calls: int) -> dict[str, Sample]:
    """Each call alternates between both; each accepted transaction is finished."""
    took: dict[tuple[str, bool], list[float]] = {}
    for number in range(calls):
        # The second call finds the code in the processor's caches.
        sides = (large, small) if number % 2 else (small, large)
        for name, call in _CALLS.items():
            for side in sides:
                took.setdefault((name, side is large), []).append(call(side) * 1e6)
    return {
        name: Sample(
            value=statistics.median(took[name, True]), floor=statistics.median(took[name, False])
        )
        for name in _CALLS
    }


def _grown(name: str, bench: Bench, row: Row) -> Result:
    growth = bench.once("growth", lambda: _growth(bench))
    samples = growth.samples[name]
    for number, sample in enumerate(samples, 1):
        tell_sample(bench, row, number, len(samples), sample)
    large, small = bench.plan.growth_large, bench.plan.growth_small
    return row.result(
        samples, {"stored": large, "beside": small, "bytes for each": round(growth.bytes_each)}
    )


ROWS = tuple(
    Row(
        f"growth-{name}",
        f"{name} with a full store",
        "the same with little in the store",
        "us",
        "ratio",
        Goal(goal=1.1, beyond=1.0, at_most=True),
        partial(_grown, name),
    )
    for name in _CALLS
)
