"""Requests per second of the platform and of an empty app behind the same router."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import argon2

from bench import stacks
from bench.errors import MeasureError
from bench.figures import Goal
from bench.load import Load, Request, generate
from bench.plan import CONNECTIONS
from bench.rows import Bench, Row, interleaved
from bench.stack_processes import cpu_seconds
from services.auth_api.passwords import hash_password

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.figures import Result
    from bench.stacks import Platform

_WARM_SECONDS = 0.5
_CPU_US_MIN = 1
_EMPTY = "an empty WSGI app, same gunicorn settings, same router"
_EMPTY_DIRECT = "an empty WSGI app, same gunicorn settings"


@dataclass
class Target:
    """A request, the process that gets it, and the expected status."""

    platform: Platform
    process: str
    requests: Callable[[Platform], Sequence[Request]]
    status: int
    connections: int = CONNECTIONS
    loads: list[Load] = field(default_factory=list)
    cpu_us: list[dict[str, float]] = field(default_factory=list)
    """Of each process, for each request."""

    def run(self, seconds: float) -> float:
        """Responses per second."""
        requests = self.requests(self.platform)
        # The last one: a run of first logins does not reach it.
        answer = self.platform.send(self.process, requests[-1])
        if answer.status_code != self.status:
            raise MeasureError(f"{self.process} answered {answer.status_code}: {answer.text[:200]}")
        url = self.platform.url(self.process)
        before = cpu_seconds(self.platform.stack)
        load = generate(url, requests, connections=self.connections, seconds=seconds)
        after = cpu_seconds(self.platform.stack)
        self.loads.append(load)
        self.cpu_us.append(
            {
                name: (used - before.get(name, 0)) / load.requests * 1e6
                for name, used in after.items()
            }
        )
        return load.rate

    def warm(self) -> None:
        """A warm-up run."""
        self.run(_WARM_SECONDS)
        self.loads.clear()
        self.cpu_us.clear()


def _compare(bench: Bench, row: Row, target: Target, floor: Target, seconds: float) -> Result:
    for side in (target, floor):
        side.warm()
    samples = interleaved(bench, row, lambda: target.run(seconds), lambda: floor.run(seconds))
    details = latencies(target, "") | latencies(floor, "floor_")
    return row.result(samples, details | _cpu(target, "") | _cpu(floor, "floor_"))


def latencies(target: Target, prefix: str) -> dict[str, float | str]:
    """The figures of the median run."""
    middle = sorted(target.loads, key=lambda load: load.rate)[len(target.loads) // 2]
    return {f"{prefix}p50_ms": middle.p50_ms, f"{prefix}p99_ms": middle.p99_ms}


def _cpu(target: Target, prefix: str) -> dict[str, float | str]:
    """CPU time per process and request, which is independent of other load."""
    medians = {
        name: statistics.median(used.get(name, 0.0) for used in target.cpu_us)
        for name in target.cpu_us[0]
    }
    spent: dict[str, float | str] = {f"{prefix}cpu_us": round(sum(medians.values()))}
    for name, us in sorted(medians.items()):
        if us >= _CPU_US_MIN:
            spent[f"{prefix}{name}_cpu_us"] = round(us)
    return spent


def payments_of(platform: Platform, connections: int) -> Target:
    """Accepts transactions through the router over so many connections, after a warm-up."""
    target = Target(platform, "router", _payments("/transactions"), 202, connections)
    target.warm()
    return target


def _payments(path: str) -> Callable[[Platform], list[Request]]:
    def requests(platform: Platform) -> list[Request]:
        # Every run starts with an empty Redis.
        platform.forget()
        return [
            Request("POST", path, stacks.JSON_HEADERS | bearer, stacks.BODY)
            for bearer in platform.bearers()
        ]

    return requests


def _accept(bench: Bench, row: Row) -> Result:
    return _both(bench, row, "router", _payments("/transactions"), 202)


def _accept_direct(bench: Bench, row: Row) -> Result:
    return _both(bench, row, "core-api", _payments("/"), 202)


def _login_again(bench: Bench, row: Row) -> Result:
    logins = [stacks.login(number) for number in range(CONNECTIONS)]
    return _both(bench, row, "router", lambda _platform: logins, 200)


def _get(bench: Bench, row: Row) -> Result:
    bench.platform.forget()
    paths = []
    for bearer in bench.platform.bearers():
        request = Request("POST", "/transactions", stacks.JSON_HEADERS | bearer, stacks.BODY)
        paths.append(bench.platform.send("router", request).headers["Location"])

    def requests(platform: Platform) -> list[Request]:
        bearers = platform.bearers()
        return [Request("GET", p, b) for p, b in zip(paths, bearers, strict=True)]

    return _both(bench, row, "router", requests, 200)


def _both(
    bench: Bench,
    row: Row,
    process: str,
    requests: Callable[[Platform], Sequence[Request]],
    status: int,
) -> Result:
    target = Target(bench.platform, process, requests, status)
    floor = Target(bench.floor, process, requests, 200)
    return _compare(bench, row, target, floor, bench.plan.load_seconds)


_FIRST_LOGINS = itertools.count(CONNECTIONS)
"""Users who have not logged in yet; another row logs in the first few repeatedly."""


def _first_login(bench: Bench, row: Row) -> Result:
    seconds = bench.plan.login_seconds

    def strangers(_platform: Platform) -> list[Request]:
        # More than two cores can verify in a run; the rest never log in.
        count = int((seconds + 1) * 60 * (os.cpu_count() or 1))
        numbers = [number % stacks.USERS for number in itertools.islice(_FIRST_LOGINS, count)]
        return [stacks.login(number) for number in numbers]

    target = Target(bench.platform, "router", strangers, 200)
    samples = interleaved(bench, row, lambda: target.run(seconds), lambda: _verifications(seconds))
    return row.result(samples, latencies(target, "") | _cpu(target, ""))


def _verifications(seconds: float) -> float:
    """Argon2id verifications per second, one at a time on each core of an idle machine.

    Uses threads, since Argon2id releases the GIL.
    """
    cores = os.cpu_count() or 1
    stored = hash_password(stacks.PASSWORD)
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(_verify_for, [stored] * cores, [seconds] * cores))


def _verify_for(stored: str, seconds: float) -> float:
    hasher = argon2.PasswordHasher.from_parameters(argon2.extract_parameters(stored))
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        hasher.verify(stored, stacks.PASSWORD)
        count += 1
    return count / (time.perf_counter() - began)


def _row(name: str, title: str, against: str, goals: tuple[float, float], measure: Any) -> Row:
    goal = Goal(goal=goals[0], beyond=goals[1])
    return Row(name, title, against, "/s", "ratio", goal, measure)


ROWS = (
    _row("accept", "POST /transactions through the router", _EMPTY, (0.5, 0.65), _accept),
    _row("accept-direct", "POST /transactions, direct", _EMPTY_DIRECT, (0.4, 0.55), _accept_direct),
    _row("login-again", "POST /auth/token, logged in before", _EMPTY, (0.5, 0.65), _login_again),
    _row(
        "login-first",
        "POST /auth/token, first login",
        "Argon2id verifications with the same parameters, one at a time on each core",
        (0.9, 0.95),
        _first_login,
    ),
    _row("get", "GET /transactions/{id}", _EMPTY, (0.5, 0.65), _get),
)
