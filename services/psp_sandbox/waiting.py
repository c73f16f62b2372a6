"""Bounded waiting: delays requests without using up all threads."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from services.psp_sandbox.errors import StripeError

# Longer than clients wait (the connector: PSP_TIMEOUT_SECONDS, 5 s), but bounded.
HOLD_SECONDS_MAX = 30
SLOW_SECONDS = 2
# gunicorn's threads for this service; at most WAITING_COUNT_MAX of them may wait.
THREADS = 64
WAITING_COUNT_MAX = 48


class Waiting:
    """Lets at most `WAITING_COUNT_MAX` requests wait at once."""

    def __init__(
        self, *, hold_seconds: float = HOLD_SECONDS_MAX, slow_seconds: float = SLOW_SECONDS
    ) -> None:
        self.hold_seconds = hold_seconds
        self.slow_seconds = slow_seconds
        self._slots = threading.BoundedSemaphore(WAITING_COUNT_MAX)

    def wait(self, environ: Mapping[str, Any], seconds: float) -> None:
        """Waits `seconds` or until the client disconnects, noticed only once its body is read."""
        if not self._slots.acquire(blocking=False):
            raise StripeError(503, "The sandbox has too many waiting requests. Try again.")
        try:
            _wait(environ.get("gunicorn.socket"), seconds)
        finally:
            self._slots.release()


def _wait(client: socket.socket | None, seconds: float) -> None:
    end = time.monotonic() + seconds
    if client is not None:
        poll = select.poll()  # unlike select(), it takes any file descriptor
        poll.register(client, select.POLLIN)
        poll.poll(seconds * 1000)
        if _is_gone(client):
            return
    time.sleep(max(0, end - time.monotonic()))


def _is_gone(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def hang_up(environ: Mapping[str, Any]) -> bool:
    """Closes the client's connection; False if it is unknown (not under gunicorn)."""
    client: socket.socket | None = environ.get("gunicorn.socket")
    if client is None:
        return False
    with contextlib.suppress(OSError):  # already closed by the client
        client.shutdown(socket.SHUT_RDWR)
    return True
