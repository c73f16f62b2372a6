"""Many transactions: what grows, and what must not."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from typing import TYPE_CHECKING

from services import store
from services.preflight.plan import PORT_OFFSETS
from tests.chaos.harness import figures

if TYPE_CHECKING:
    import psutil

    from tests.chaos.harness import Chaos

TRANSACTIONS_MAX = 20_000
SECONDS_MAX = 75  # what does not fit is not sent
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
        self._lock = threading.Lock()
        self.sent = 0
        self._failures: list[str] = []
        self._token = ""
        self._token_until = 0.0

    def run(self, count: int, seconds_max: float) -> int:
        """Sends up to `count`; returns how many were accepted."""
        before = self.sent
        self._until = time.monotonic() + seconds_max
        self._limit = before + count
        threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds_max + 30)
        assert [] == self._failures
        return self.sent - before

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
                if client.xlen(store.QUEUE) > OPEN_MAX:
                    time.sleep(0.05)
                    continue
                with self._lock:
                    if self.sent >= self._limit:
                        return
                    self.sent += 1
                connection.request("POST", "/", body, self._headers())
                answer = connection.getresponse()
                text = answer.read().decode()
                if answer.status != 202:
                    self._failures.append(text)
                    return
                with self._lock:
                    self.chaos.accepted.append(json.loads(text)["id"])


def memory(chaos: Chaos) -> dict[str, float]:
    """Resident megabytes of each process of the stack with its children."""
    return {
        name: sum(p.memory_info().rss for p in family(chaos.stack.process(name))) / _MB
        for name in PORT_OFFSETS
    }


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def test_nothing_grows_but_what_is_kept(chaos: Chaos) -> None:
    """Up to 20,000 transactions: memory of each process stays, and the streams are empty."""
    soak = Soak(chaos)
    soak.run(WARM_UP, 40)
    chaos.wait_ended(chaos.accepted)
    before = memory(chaos)
    began = time.monotonic()
    count = soak.run(TRANSACTIONS_MAX - WARM_UP, SECONDS_MAX)
    chaos.wait_ended(chaos.accepted)
    seconds = time.monotonic() - began
    after = memory(chaos)
    grown = {name: after[name] - before[name] for name in after}
    figures(
        "soak", transactions=soak.sent, a_second=round(count / seconds),
        **{name: f"{before[name]:.1f} -> {after[name]:.1f} MB" for name in before},
    )  # fmt: skip
    redis_bytes_each = grown.pop("redis") * _MB / count
    assert redis_bytes_each <= REDIS_BYTES_EACH_MAX
    assert {} == {name: mb for name, mb in grown.items() if mb > GROWTH_MB_MAX}
    assert {"captured": soak.sent} == chaos.check()
