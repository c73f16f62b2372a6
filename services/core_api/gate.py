"""A gate before each Redis: one that hangs must not occupy all of the server's threads."""

import contextlib
import threading
from collections.abc import Iterator

import redis


class Gate:
    """Lets calls pass; once one has failed with `slow_error`, one at a time, until one does not."""

    def __init__(self, slow_error: type[redis.RedisError]) -> None:
        self._slow_error = slow_error
        self._lock = threading.Lock()
        self._inside = 0
        self._hangs = False

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Surrounds a call; raises redis.TimeoutError at once if another one tries a slow Redis."""
        with self._lock:
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
                self._hangs = hangs
