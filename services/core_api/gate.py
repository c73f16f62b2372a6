"""A gate before each Redis: one that hangs must not occupy all of the server's threads."""

import contextlib
import threading
from collections.abc import Iterator

import redis

from services.common.scripts import NotReplicatedError


class Gate:
    """Lets calls pass; once one has timed out, only one at a time, until one does not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._hangs = False

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Surrounds a call; raises redis.TimeoutError at once if another one tries a hanging Redis.

        A write that replicas do not confirm has waited for them as long as for a Redis that hangs.
        """
        with self._lock:
            if self._hangs and self._inside:
                raise redis.TimeoutError("no response lately; another request is trying")
            self._inside += 1
        hangs = False
        try:
            yield
        except (redis.TimeoutError, NotReplicatedError):
            hangs = True
            raise
        finally:
            with self._lock:
                self._inside -= 1
                self._hangs = hangs
