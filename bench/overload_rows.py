"""The platform under more load than it can process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import http_rows, stacks
from bench.errors import MeasureError
from bench.figures import Goal
from bench.load import Request, generate
from bench.plan import CONNECTIONS
from bench.rows import Bench, Row, interleaved
from services.common import store

if TYPE_CHECKING:
    from bench.figures import Result
    from bench.load import Load
    from bench.stacks import Platform

_CROWD = 16 * CONNECTIONS
_FILL = """
for number = 1, ARGV[1] do
  redis.call('XADD', KEYS[1], '*', 'transaction_id', number, 'request_id', '')
end
"""
_FILL_PER_CALL = 10_000


def _overload(bench: Bench, row: Row) -> Result:
    seconds = bench.plan.load_seconds
    crowd = http_rows.payments_of(bench.platform, connections=_CROWD)
    held = http_rows.payments_of(bench.platform, connections=CONNECTIONS)
    samples = interleaved(bench, row, lambda: crowd.run(seconds), lambda: held.run(seconds))
    return row.result(
        samples,
        {
            "connections": _CROWD,
            **http_rows.latencies(crowd, ""),
            **http_rows.latencies(held, "held_"),
            **_refusals(bench),
        },
    )


def _refusals(bench: Bench) -> dict[str, float | str]:
    """The queue is full, and requests continue."""
    platform, seconds = bench.platform, bench.plan.load_seconds
    _fill_queue(platform)
    found: dict[str, float | str] = {}
    for connections in (CONNECTIONS, _CROWD):
        load = _refused(platform, connections, seconds)
        prefix = f"refusals to {connections}:"
        found[f"{prefix} /s"] = round(load.refusal_rate)
        found[f"{prefix} p50_ms"] = load.p50_ms
        found[f"{prefix} p99_ms"] = load.p99_ms
    platform.forget()
    return found


def _refused(platform: Platform, connections: int, seconds: float) -> Load:
    requests = [
        Request("POST", "/transactions", stacks.JSON_HEADERS | bearer, stacks.BODY)
        for bearer in platform.bearers()
    ]
    answer = platform.send("router", requests[0])
    if answer.status_code != 503 or "Retry-After" not in answer.headers:
        raise MeasureError(f"with a full queue the response was {answer.status_code}")
    url = platform.url("router")
    load = generate(url, requests, connections=connections, seconds=seconds, refusals=True)
    if load.refused != load.requests:
        raise MeasureError(
            f"{load.requests - load.refused} requests were accepted with a full queue"
        )
    return load


def _fill_queue(platform: Platform) -> None:
    client = platform.redis()
    fill = client.register_script(_FILL)
    for _batch in range(stacks.QUEUE_LIMIT // _FILL_PER_CALL):
        fill(keys=[store.QUEUE], args=[_FILL_PER_CALL])


ROWS = (
    Row(
        "overload",
        "POST /transactions from 256 connections",
        "the peak, from 16 connections",
        "/s",
        "ratio",
        Goal(goal=0.9),
        _overload,
    ),
)
