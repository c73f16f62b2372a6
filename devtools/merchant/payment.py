"""Follows a transaction to its final status."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from devtools.merchant.answers import Transaction, read
from devtools.merchant.client import expect
from devtools.merchant.errors import PlatformError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devtools.merchant.client import Answer, Deadline

# A payment at the sandbox takes some 20 ms; one that is retried takes seconds.
_POLL_SECONDS_MIN = 0.01
_POLL_SECONDS_MAX = 0.5


def follow(
    ask: Callable[[], Answer],
    deadline: Deadline,
    on_trouble: Callable[[PlatformError], None] = lambda _error: None,
) -> Iterator[tuple[Answer, Transaction]]:
    """The transaction, as often as it is asked for, until it is final or the deadline has passed.

    It was accepted, so a platform that is away for a moment is asked again: `on_trouble` hears of
    the first time.

    Raises:
        PlatformError: when the platform refuses, or is still away at the deadline.
    """
    interval_seconds = _POLL_SECONDS_MIN
    trouble: PlatformError | None = None
    while deadline.seconds_left():
        time.sleep(min(interval_seconds, deadline.seconds_left()))
        interval_seconds = min(interval_seconds * 1.5, _POLL_SECONDS_MAX)
        try:
            answer = expect(ask(), 200)
        except PlatformError as error:
            if not _passes(error):
                raise
            # Cut short by the deadline is no trouble: the transaction is just still open.
            if deadline.seconds_left():
                if trouble is None:
                    on_trouble(error)
                trouble = error
            continue
        trouble = None
        transaction = read(Transaction, answer)
        yield answer, transaction
        if transaction.is_final:
            return
    if trouble is not None:
        raise trouble


def _passes(error: PlatformError) -> bool:
    return isinstance(error, UnreachableError) or error.status == 429 or error.status >= 500
