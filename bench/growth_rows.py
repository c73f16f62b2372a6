"""The cost of accepting, finishing and listing with a full Redis and with a small one.

All transactions belong to one user, the worst case: index and ledger have an entry for each.
"""

import contextlib
import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import Callable

from bench import copies
from bench.results import Details, MeasureError, Row, Sample
from bench.rows import Bench, Measured, log, measures
from services.common.store import Client
from services.core_api.models import TransactionRequest
from services.core_api.transactions import Transactions
from services.psp_connector.queue import Queue
from services.psp_connector.records import FinalResult
from services.psp_connector.settings import ConnectorSettings

_PAGE = 20
_SMALL = 1_000
# As shipped, Redis refuses writes at 1 GB; the details report the size of a million.
_OPTIONS = ("--maxmemory", "0", "--auto-aof-rewrite-percentage", "0")


class Side:
    """A Redis with a given number of transactions, and the services' clients of it."""

    def __init__(self, client: Client, count: int) -> None:
        settings = ConnectorSettings.read(
            {"REDIS_URL": "redis://127.0.0.1:1", "PSP_URL": "http://127.0.0.1:1", "HTTP_PORT": "1"}
        )
        self._transactions = Transactions(client, 10**9)
        self._queue = Queue(client, settings, "bench")
        self._queue.join()
        copies.finished(client, count, self._finish)

    def run(self) -> dict[str, float]:
        """Accepts, finishes and lists; returns the microseconds of each."""
        request, request_id = TransactionRequest(amount=1250, currency="USD"), str(uuid.uuid4())
        return {
            "accept": _microseconds(
                lambda: self._transactions.accept(copies.USER_ID, request, request_id, None)
            ),
            "finish": self._finish(),
            "list": _microseconds(lambda: self._transactions.page(copies.USER_ID, _PAGE, None)),
        }

    def _finish(self) -> float:
        works = self._queue.begin(self._queue.read(1, 100))
        if len(works) != 1:
            raise MeasureError("the queue returned another transaction than the accepted one")
        result = FinalResult("captured", psp_reference=f"pi_{uuid.uuid4()}", points=12)
        return _microseconds(lambda: self._queue.save([(works[0], result)]))


def _microseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def _row(name: str) -> Row:
    return Row(f"growth-{name}", f"{name} with a full store", "us", 1.1, 1.0, at_most=True)


@measures(_row("accept"), _row("finish"), _row("list"))
def _growth(bench: Bench) -> Measured:
    samples: dict[str, list[Sample]] = defaultdict(list)
    calls = bench.plan.growth_calls
    with contextlib.ExitStack() as exit_stack:
        clients = [exit_stack.enter_context(bench.redis(*_OPTIONS))[1] for _side in range(2)]
        log(f"{'growth':<16} storing {bench.plan.growth:,} transactions")
        full, small = map(Side, clients, (bench.plan.growth, _SMALL))
        _round(full, small, calls // 5)
        for number in bench.rounds():
            for name, sample in _round(full, small, calls).items():
                samples[name].append(sample)
                log(f"growth-{name:<9} {number}  {sample[0]:.0f} against {sample[1]:.0f}")
        used = [client.info("memory")["used_memory"] for client in clients]
    details: Details = {
        "stored": bench.plan.growth,
        "beside": _SMALL,
        "bytes for each": round((used[0] - used[1]) / (bench.plan.growth - _SMALL)),
    }
    for found in samples.values():
        yield found, details


def _round(full: Side, small: Side, calls: int) -> dict[str, Sample]:
    """Medians of this many calls on each side, in turn."""
    took: dict[Side, list[dict[str, float]]] = {full: [], small: []}
    for number in range(calls):
        # The second side benefits from warm CPU caches.
        for side in (full, small) if number % 2 else (small, full):
            took[side].append(side.run())
    return {
        name: (
            statistics.median(call[name] for call in took[full]),
            statistics.median(call[name] for call in took[small]),
        )
        for name in took[full][0]
    }
