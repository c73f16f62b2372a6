"""Time from acceptance to final status of a single transaction."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import httpx

from bench import psp_alone, stacks
from bench.errors import MeasureError
from bench.figures import Goal, Sample
from bench.rows import Bench, Row, tell_sample
from services.common import store
from services.common.transaction import FINAL

if TYPE_CHECKING:
    from bench.figures import Result
    from services.psp_connector.stripe_psp import StripePsp

_CAPTURED_SECONDS_MAX = 10
_POLL_SECONDS = 0.0005


def _latency(bench: Bench, row: Row) -> Result:
    platform = bench.platform
    platform.forget()
    with platform.awake("psp-connector"), httpx.Client(base_url=platform.url("router")) as http:
        psp = psp_alone.client(platform.url("psp-sandbox"))
        client = platform.redis()
        _pairs(http, client, platform.bearers()[0], psp, 3)
        samples = []
        for number in bench.rounds(bench.plan.rounds):
            bearer = platform.bearers()[0]
            sample = _pairs(http, client, bearer, psp, bench.plan.latency_pairs)
            samples.append(sample)
            tell_sample(bench, row, number, bench.plan.rounds, sample)
    return row.result(samples, {"transactions": len(samples) * bench.plan.latency_pairs})


def _pairs(
    http: httpx.Client, client: store.Client, bearer: dict[str, str], psp: StripePsp, count: int
) -> Sample:
    """Medians of transactions and calls at the PSP, one after the other."""
    through, alone = [], []
    for _pair in range(count):
        through.append(_transaction_ms(http, client, bearer))
        alone.append(_call_ms(psp))
    return Sample(value=statistics.median(through), floor=statistics.median(alone))


def _transaction_ms(http: httpx.Client, client: store.Client, bearer: dict[str, str]) -> float:
    headers = stacks.JSON_HEADERS | bearer
    answer = http.post("/transactions", content=stacks.BODY, headers=headers)
    accepted = time.perf_counter()
    if answer.status_code != 202:
        raise MeasureError(f"not accepted: {answer.status_code} {answer.text[:200]}")
    key = store.transaction_key(answer.json()["id"])
    while (status := client.hget(key, "status")) not in FINAL:
        if time.perf_counter() - accepted > _CAPTURED_SECONDS_MAX:
            raise MeasureError(f"still {status} after {_CAPTURED_SECONDS_MAX} s")
        time.sleep(_POLL_SECONDS)
    if status != "captured":
        raise MeasureError(f"ended as {status}")
    return (time.perf_counter() - accepted) * 1000


def _call_ms(psp: StripePsp) -> float:
    charge: Any = psp_alone.charge()
    began = time.perf_counter()
    psp.charge(charge)
    return (time.perf_counter() - began) * 1000


ROWS = (
    Row(
        "latency",
        "accepted to captured, one at a time",
        "the call at the PSP alone, in between",
        "ms",
        "difference",
        Goal(goal=5, beyond=3, at_most=True),
        _latency,
    ),
)
