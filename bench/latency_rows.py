"""Time from acceptance to final status of a single transaction."""

import contextlib
import statistics
import time

import httpx

from bench import psp, stacks
from bench.results import MeasureError, Row
from bench.rows import Bench, Measured, measures
from services.common import store
from services.common.transaction import FINAL
from tests import support

_CAPTURED_SECONDS_MAX = 10
_POLL_SECONDS = 0.0005


@measures(Row("latency", "accepted to captured", "ms", 5, 3, at_most=True, kind="difference"))
def _latency(bench: Bench) -> Measured:
    stack, pairs = bench.platform, bench.plan.latency_pairs
    stacks.flush(stack)
    client = psp.client(stacks.url(stack, "psp-sandbox"))
    alone: list[float] = []

    def transactions() -> float:
        """The median; a call at the PSP comes after each, for the floor."""
        bearer, through = stacks.bearers(stack)[0], []
        alone.clear()
        for _pair in range(pairs):
            through.append(_transaction_ms(http, redis, bearer))
            began = time.perf_counter()
            psp.charge(client)
            alone.append((time.perf_counter() - began) * 1000)
        return statistics.median(through)

    stacks.supervisor(stack).start("psp-connector")
    try:
        support.wait_until(lambda: stack.healthy("psp-connector"), what="the connector")
        router = httpx.Client(base_url=stacks.url(stack, "router"), trust_env=False)
        with router as http, contextlib.closing(stack.redis()) as redis:
            transactions()  # connects
            samples = bench.interleaved("latency", transactions, lambda: statistics.median(alone))
    finally:
        stacks.supervisor(stack).stop("psp-connector")
    yield samples, {"transactions": len(samples) * pairs}


def _transaction_ms(http: httpx.Client, client: store.Client, bearer: dict[str, str]) -> float:
    response = http.post("/transactions", json=stacks.PAYMENT, headers=bearer)
    accepted = time.perf_counter()
    if response.status_code != 202:
        raise MeasureError(f"not accepted: {response.status_code} {response.text[:200]}")
    key = store.WHOLE.transaction(response.json()["id"])
    while (status := client.hget(key, "status")) not in FINAL:
        if time.perf_counter() - accepted > _CAPTURED_SECONDS_MAX:
            raise MeasureError(f"still {status} after {_CAPTURED_SECONDS_MAX} s")
        time.sleep(_POLL_SECONDS)
    if status != "captured":
        raise MeasureError(f"ended as {status}")
    return (time.perf_counter() - accepted) * 1000
