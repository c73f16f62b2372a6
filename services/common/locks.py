"""Locks between processes (flock(2)), which end with their descriptor."""

import fcntl
import time

_POLL_SECONDS = 0.05


def take(descriptor: int, seconds_max: float, *, is_shared: bool = False) -> bool:
    """Locks a file or folder, where the file system has locks; shared ones exclude only others.

    Returns False if another process has it locked for all of this time.
    """
    deadline = time.monotonic() + seconds_max
    while not _try(descriptor, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # the file system has no locks
    return True
