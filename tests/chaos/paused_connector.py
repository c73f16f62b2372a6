"""A connector that pauses at one step of its work, to be killed there.

PAUSE_AT is a name of STEPS; PAUSE_FILE is created when it pauses. Its lease is shorter than the
shipped one, as each test waits for its end; test_frozen_and_back has the shipped one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.psp_connector import queue
from services.psp_connector.__main__ import main
from services.psp_connector.queue import Queue
from services.psp_connector.stripe_psp import StripePsp

# Longer than any test waits before it kills.
_PAUSE_SECONDS = 100
_LEASE_SECONDS = 2  # it is renewed each second

# Where the pause is: class, method, before or after it.
STEPS: Mapping[str, tuple[type[Any], str, str]] = {
    "after read": (Queue, "read", "after"),
    "after begin": (Queue, "begin", "after"),
    "before charge": (StripePsp, "charge", "before"),
    "after charge": (StripePsp, "charge", "after"),
    "before finish": (Queue, "save", "before"),
    "after finish": (Queue, "save", "after"),
    "before retry": (Queue, "save", "before"),
    "after retry": (Queue, "save", "after"),
    "after promote": (Queue, "promote", "after"),
}


def _pausing(method: Callable[..., Any], when: str, signal: Path) -> Callable[..., Any]:
    def paused(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            _pause(signal)
        result = method(*args, **kwargs)
        # An empty read is no step.
        if when == "after" and result:
            _pause(signal)
        return result

    return paused


def _pause(signal: Path) -> None:
    signal.touch()
    time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    queue.LEASE_SECONDS = _LEASE_SECONDS
    owner, name, when = STEPS[os.environ["PAUSE_AT"]]
    setattr(owner, name, _pausing(getattr(owner, name), when, Path(os.environ["PAUSE_FILE"])))
    main()
