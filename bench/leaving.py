"""Ends all started processes after Ctrl-C, failures and signals at any moment."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A stack stops within 10 s on an idle machine.
_STOP_SECONDS_MAX = 25
_KILL_SECONDS_MAX = 5


@contextlib.contextmanager
def nothing_behind() -> Iterator[None]:
    """Turns signals into exceptions, so that every `finally` runs; then ends remaining children.

    A child remains if the signal came between its start and the `try` that ends it.
    """
    for number in _SIGNALS:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        _ignore_signals()
        _end_children()


def _ignore_signals() -> None:
    """Ignores further signals: a second Ctrl-C must not interrupt the cleanup."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _leave(number: int, _frame: object) -> None:
    _ignore_signals()
    sys.stderr.write("bench: ending started processes\n")
    raise SystemExit(128 + number)


def _end_children() -> None:
    children = psutil.Process().children()
    if not children:
        return
    pids = ", ".join(str(child.pid) for child in children)
    sys.stderr.write(f"bench: still there, and ended now: {pids}\n")
    everything = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    psutil.wait_procs(children, _STOP_SECONDS_MAX)
    for process in everything:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(everything, _KILL_SECONDS_MAX)
