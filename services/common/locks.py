"""Exclusive locks between processes (flock(2)), which end with their descriptor."""

import fcntl
import time

_POLL_SECONDS = 0.05


def take(descriptor: int, seconds_max: float) -> bool:
    """Locks a file or folder, where the file system has locks.

    Returns False if another process has it locked for all of this time.
    """
    deadline = time.monotonic() + seconds_max
    while not _try(descriptor):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # the file system has no locks
    return True
