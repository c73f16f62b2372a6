"""Requests per second of the platform and of an empty app behind the same router."""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import argon2
import httpx

from bench import stacks
from bench.load import Load, generate
from bench.results import Details, MeasureError, Row
from bench.rows import Bench, Measured, measures
from bench.stacks import CONNECTIONS
from services.auth_api.passwords import hash_password
from services.common import store
from tests import support
from tests.receiver import receiver
from tests.stack.stack import Stack

Requests = Callable[[Stack], Sequence[httpx.Request]]

_CROWD = 16 * CONNECTIONS
_FILL = "for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'transaction_id', '') end"
_FILL_PER_CALL = 10_000


@dataclass
class Target:
    """A stack and the requests it gets."""

    bench: Bench
    stack: Stack
    requests: Requests
    status: int = 200
    connections: int = CONNECTIONS
    loads: list[Load] = field(default_factory=list)
    cpu_us: list[dict[str, float]] = field(default_factory=list)

    def run(self) -> float:
        """Responses per second."""
        requests = self.requests(self.stack)
        # The last user, which no run of first logins reaches.
        send(requests[-1], self.status)
        before = stacks.cpu_seconds(self.stack)
        load = generate(
            requests, connections=self.connections, seconds=self.bench.plan.load_seconds
        )
        after = stacks.cpu_seconds(self.stack)
        self.loads.append(load)
        self.cpu_us.append(
            {name: (after[name] - before.get(name, 0)) / load.requests * 1e6 for name in after}
        )
        return load.rate

    def details(self, prefix: str = "") -> Details:
        """Latencies of the median run; median CPU time per process and request."""
        middle = sorted(self.loads, key=lambda load: load.rate)[len(self.loads) // 2]
        used_us = {
            f"{name}_cpu_us": round(statistics.median(used.get(name, 0.0) for used in self.cpu_us))
            for name in sorted(self.cpu_us[0])
        }
        found = {"p50_ms": middle.p50_ms, "p99_ms": middle.p99_ms, "cpu_us": sum(used_us.values())}
        found |= {name: us for name, us in used_us.items() if us}
        return {f"{prefix}{name}": value for name, value in found.items()}


def send(request: httpx.Request, status: int) -> httpx.Response:
    """Sends one request; raises MeasureError if the response has another status."""
    response = support.http.send(request)
    if response.status_code != status:
        raise MeasureError(f"{request.url} responded {response.status_code}: {response.text[:200]}")
    return response


def _payments(process: str, path: str) -> Requests:
    def requests(stack: Stack) -> Sequence[httpx.Request]:
        stacks.flush(stack)
        return stacks.payments(stack, process, path)

    return requests


_THROUGH_ROUTER = _payments("router", "/transactions")


def _compare(bench: Bench, name: str, target: Target, floor: Target) -> Measured:
    for cold in (target, floor):
        cold.run()
    samples = bench.interleaved(name, target.run, floor.run)
    yield samples, target.details() | floor.details("floor_")


def _against_empty(bench: Bench, name: str, requests: Requests, status: int) -> Measured:
    target = Target(bench, bench.platform, requests, status)
    return _compare(bench, name, target, Target(bench, bench.floor, requests))


@measures(Row("accept", "POST /transactions through the router", "/s", 0.5, 0.65))
def _accept(bench: Bench) -> Measured:
    return _against_empty(bench, "accept", _THROUGH_ROUTER, 202)


@measures(Row("traced", "POST /transactions through the router, traced", "/s", 0.85, 0.95))
def _traced(bench: Bench) -> Measured:
    """Against the same without tracing; the receiver on this machine only reads the spans."""
    untraced = Target(bench, bench.platform, _THROUGH_ROUTER, 202)
    with (
        receiver() as received,
        stacks.running(bench.folder, OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint) as stack,
    ):
        stacks.supervisor(stack).stop("psp-connector")
        yield from _compare(bench, "traced", Target(bench, stack, _THROUGH_ROUTER, 202), untraced)
        if not received.service.seen:
            raise MeasureError("no trace was exported")


@measures(Row("accept-direct", "POST /transactions, direct", "/s", 0.4, 0.55))
def _accept_direct(bench: Bench) -> Measured:
    return _against_empty(bench, "accept-direct", _payments("core-api", "/"), 202)


@measures(Row("login-again", "POST /auth/token, logged in before", "/s", 0.5, 0.65))
def _login_again(bench: Bench) -> Measured:
    def logins(stack: Stack) -> list[httpx.Request]:
        return [stacks.login(stack, number) for number in range(CONNECTIONS)]

    return _against_empty(bench, "login-again", logins, 200)


_FIRST_LOGINS = itertools.count(CONNECTIONS)
"""Users who have not logged in yet; another row logs in the first few repeatedly."""


@measures(Row("login-first", "POST /auth/token, first login", "/s", 0.9, 0.95))
def _first_login(bench: Bench) -> Measured:
    seconds = bench.plan.load_seconds

    def first_logins(stack: Stack) -> list[httpx.Request]:
        # More than two cores can verify in a run; the rest never log in.
        count = int((seconds + 1) * 60 * (os.cpu_count() or 1))
        numbers = itertools.islice(_FIRST_LOGINS, count)
        return [stacks.login(stack, number % stacks.USERS) for number in numbers]

    target = Target(bench, bench.platform, first_logins)
    samples = bench.interleaved("login-first", target.run, partial(_verifications, seconds))
    yield samples, target.details()


def _verifications(seconds: float) -> float:
    """Argon2id verifications per second, one at a time on each core; they release the GIL."""
    stored = hash_password(stacks.PASSWORD)
    hasher = argon2.PasswordHasher.from_parameters(argon2.extract_parameters(stored))

    def verify(_core: int) -> float:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            hasher.verify(stored, stacks.PASSWORD)
            count += 1
        return count / (time.perf_counter() - began)

    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(verify, range(cores)))


@measures(Row("get", "GET /transactions/{id}", "/s", 0.5, 0.65))
def _get(bench: Bench) -> Measured:
    stored = [send(payment, 202) for payment in _THROUGH_ROUTER(bench.platform)]
    paths = [response.headers["Location"] for response in stored]

    def requests(stack: Stack) -> list[httpx.Request]:
        router = stacks.url(stack, "router")
        return [
            httpx.Request("GET", router + path, headers=bearer)
            for path, bearer in zip(paths, stacks.bearers(stack), strict=True)
        ]

    return _against_empty(bench, "get", requests, 200)


@measures(Row("overload", "POST /transactions from 256 connections", "/s", 0.9))
def _overload(bench: Bench) -> Measured:
    crowd = Target(bench, bench.platform, _THROUGH_ROUTER, 202, _CROWD)
    held = Target(bench, bench.platform, _THROUGH_ROUTER, 202)
    [(samples, details)] = _compare(bench, "overload", crowd, held)
    with bench.platform.redis() as client:
        fill = client.register_script(_FILL)
        for _batch in range(stacks.QUEUE_LIMIT // _FILL_PER_CALL):
            fill(keys=[store.WHOLE.queue], args=[_FILL_PER_CALL])
    for connections in (CONNECTIONS, _CROWD):
        details |= _refusals(bench, connections)
    stacks.flush(bench.platform)
    yield samples, details


def _refusals(bench: Bench, connections: int) -> Details:
    """How quickly a full queue refuses."""
    requests = stacks.payments(bench.platform, "router", "/transactions")
    seconds = bench.plan.load_seconds
    if "Retry-After" not in send(requests[0], 503).headers:
        raise MeasureError("a full queue refuses without Retry-After")
    load = generate(requests, connections=connections, seconds=seconds, refusals=True)
    if load.rate:
        raise MeasureError(f"a full queue accepted {load.requests - load.refused} requests")
    found = {"/s": round(load.refused / load.seconds), "p50_ms": load.p50_ms, "p99_ms": load.p99_ms}
    return {f"refusals to {connections}: {name}": value for name, value in found.items()}
