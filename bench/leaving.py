"""Ends all started processes after Ctrl-C, failures and signals at any moment."""

import contextlib
import signal
import sys
from collections.abc import Iterator

import psutil

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A stack stops within 10 s on an idle machine.
_STOP_SECONDS_MAX = 25


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
        children = psutil.Process().children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        for child in psutil.wait_procs(children, _STOP_SECONDS_MAX)[1]:
            child.kill()


def _ignore_signals() -> None:
    """Ignores further signals: a second Ctrl-C must not interrupt the cleanup."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _leave(number: int, _frame: object) -> None:
    _ignore_signals()
    sys.stderr.write("bench: ending started processes\n")
    raise SystemExit(128 + number)
