"""20,000 transactions through one stack, in parts that are each bounded: what must not grow."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from devtools.address import PORT_OFFSETS
from services.common import store
from tests.chaos.harness import Chaos, figures

if TYPE_CHECKING:
    import psutil

TRANSACTIONS = 20_000
PARTS = 4
# 45 a second on the slowest machine; a part that takes longer fails.
PART_SECONDS_MAX = 110
WARM_UP = 1500
SENDERS = 4
# More open ones than this, and the senders wait: what is kept there is not a leak.
OPEN_MAX = 500
_TOKEN_SECONDS_MAX = 15

# What a warm Python process may still gain: threads that had not run, and pieces of the heap that
# are not given back. A leak of 1 KB for each transaction would be 20 MB.
GROWTH_MB_MAX = 12
# Redis keeps each transaction for FINISHED_DAYS: record, index, ledger, with room to spare.
REDIS_BYTES_EACH_MAX = 3000
_MB = 1_000_000


class Soak:
    """Senders that speak to the Core API itself, on connections that stay."""

    def __init__(self, chaos: Chaos) -> None:
        self.chaos = chaos
        self.sent = 0
        self.before: dict[str, float] = {}
        self._lock = threading.Lock()
        self._failures: list[str] = []
        self._token = ""
        self._token_until = 0.0

    def run(self, count: int, seconds_max: float) -> float:
        """Sends `count` and waits until they have ended; returns how many seconds that took."""
        began = time.monotonic()
        until = self._until = began + seconds_max
        self._limit = self.sent + count
        threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds_max + 30)
        assert self._failures == []
        assert len(self.chaos.accepted) == self._limit, f"so many in {seconds_max} s, not all"
        self.chaos.wait_ended(self.chaos.accepted[-count:], until - time.monotonic())
        return time.monotonic() - began

    def _headers(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() > self._token_until:
                self._token = self.chaos.stack.token()
                self._token_until = time.monotonic() + _TOKEN_SECONDS_MAX
            token = self._token
        return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def _send(self) -> None:
        body = json.dumps({"amount": 1250, "currency": "USD"})
        connection = http.client.HTTPConnection("127.0.0.1", self.chaos.port("core-api"))
        with contextlib.closing(connection), contextlib.closing(self.chaos.redis()) as client:
            while time.monotonic() < self._until:
                if client.xlen(store.WHOLE.queue) > OPEN_MAX:
                    time.sleep(0.05)
                    continue
                with self._lock:
                    if self.sent >= self._limit:
                        return
                    self.sent += 1
                connection.request("POST", "/", body, self._headers())
                response = connection.getresponse()
                text = response.read().decode()
                if response.status != 202:
                    self._failures.append(text)
                    return
                with self._lock:
                    self.chaos.accepted.append(json.loads(text)["id"])


def family(chaos: Chaos, name: str) -> list[psutil.Process]:
    process = chaos.stack.process(name)
    return [process, *process.children(recursive=True)]


def memory(chaos: Chaos) -> dict[str, float]:
    """Resident megabytes of each process of the stack with its children."""
    return {
        name: sum(p.memory_info().rss for p in family(chaos, name)) / _MB for name in PORT_OFFSETS
    }


def cpu_seconds(chaos: Chaos) -> dict[str, float]:
    """What each process of the stack has used of the processors."""
    return {name: sum(sum(p.cpu_times()[:2]) for p in family(chaos, name)) for name in PORT_OFFSETS}


@pytest.fixture(scope="module")
def soak(lasting: Chaos) -> Soak:
    """A warm stack: what it holds now is what it may hold at the end."""
    soak = Soak(lasting)
    soak.run(WARM_UP, PART_SECONDS_MAX)
    soak.before = memory(lasting)
    return soak


@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_nothing_grows_but_what_is_kept(soak: Soak, part: int) -> None:
    """A quarter of 20,000 transactions: memory is what it was at first, the streams are empty."""
    chaos, count = soak.chaos, TRANSACTIONS // PARTS
    used = cpu_seconds(chaos)
    seconds = soak.run(count, PART_SECONDS_MAX)
    after = memory(chaos)
    figures(
        f"soak, part {part} of {PARTS}", transactions=soak.sent - WARM_UP,
        a_second=round(count / seconds),
        **{name: f"{soak.before[name]:.1f} -> {after[name]:.1f} MB" for name in after},
        cpu_ms_each={
            name: round((now - used[name]) / count * 1000, 1)
            for name, now in cpu_seconds(chaos).items()
        },
    )  # fmt: skip
    grown = {name: after[name] - soak.before[name] for name in after}
    redis_bytes_each = grown.pop("redis") * _MB / (soak.sent - WARM_UP)
    assert redis_bytes_each <= REDIS_BYTES_EACH_MAX
    assert {name: mb for name, mb in grown.items() if mb > GROWTH_MB_MAX} == {}
    with contextlib.closing(chaos.redis()) as client:
        left = (
            client.xlen(store.WHOLE.queue),
            client.zcard(store.WHOLE.retries),
            client.xlen(store.WHOLE.deadletters),
        )
    assert left == (0, 0, 0)


def test_all_of_it_happened_once(soak: Soak) -> None:
    """After the last part: each of the 20,000 is captured, once, and points and ledger agree."""
    assert soak.sent == WARM_UP + TRANSACTIONS
    assert {"captured": soak.sent} == soak.chaos.check()
