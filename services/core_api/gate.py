"""A gate before each Redis: one that hangs must not occupy all of the server's threads."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import redis

# After so long without a call the last timeout says nothing: a burst must not find the gate closed.
_LAPSE_SECONDS = 1.0


class Gate:
    """Lets calls pass; once one has failed with `slow_error`, one at a time, until one does not.

    It also opens after a second without a call. `clock` gives seconds.
    """

    def __init__(
        self, slow_error: type[redis.RedisError], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slow_error = slow_error
        self._clock = clock
        self._lock = threading.Lock()
        self._inside = 0
        self._hangs = False
        self._ended_at = 0.0

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Surrounds a call; raises redis.TimeoutError at once if another one tries a slow Redis."""
        with self._lock:
            if not self._inside and self._clock() - self._ended_at > _LAPSE_SECONDS:
                self._hangs = False
            if self._hangs and self._inside:
                raise redis.TimeoutError("no response lately; another request is trying")
            self._inside += 1
        hangs = False
        try:
            yield
        except self._slow_error:
            hangs = True
            raise
        finally:
            with self._lock:
                self._inside -= 1
                self._ended_at = self._clock()
                self._hangs = hangs
