"""Sends many payments at a fixed rate, as a merchant would."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from devtools.merchant.client import Client, Deadline, Session
from devtools.merchant.errors import PlatformError

COUNT_MAX = 1_000
RATE_MAX = 100
_THREADS = 8
# Added to the time that the payments take at the rate.
_GRACE_SECONDS = 20.0


class Burst:
    """One burst at a time."""

    def __init__(self, url: str, password: str) -> None:
        self._url = url
        self._password = password
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._results: list[str] = []
        self._count = 0

    @property
    def runs(self) -> bool:
        """Whether payments are being sent."""
        return self._thread is not None and self._thread.is_alive()

    def __str__(self) -> str:
        """Number of responses, by result."""
        if not self._count:
            return ""
        counts = Counter(self._results)
        results = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none yet"
        return f"{counts.total()} of {self._count} answered: {results}"

    def start(self, merchant: str, body: Mapping[str, Any], count: int, per_second: int) -> None:
        """Starts a burst unless one is running."""
        if self.runs:
            return
        self._stopped.clear()
        self._results = []
        self._count = min(max(count, 1), COUNT_MAX)
        rate = min(max(per_second, 1), RATE_MAX)
        self._thread = threading.Thread(
            target=self._run, args=(merchant, dict(body), rate), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stops sending."""
        self._stopped.set()

    def _run(self, merchant: str, body: dict[str, Any], per_second: int) -> None:
        deadline = Deadline(self._count / per_second + _GRACE_SECONDS)
        with Client(self._url, deadline) as client, ThreadPoolExecutor(_THREADS) as pool:
            session = Session(client, merchant, self._password)

            def send() -> None:
                try:
                    answer = session.send(lambda token: client.post_transaction(token, body))
                    result = "accepted" if answer.status == 202 else f"refused ({answer.status})"
                except PlatformError as error:
                    result = f"failed ({error.detail})"
                self._results.append(result)

            started = time.monotonic()
            for number in range(self._count):
                due = started + number / per_second
                if self._stopped.wait(max(due - time.monotonic(), 0)):
                    return
                pool.submit(send)
