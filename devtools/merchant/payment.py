"""Follows a transaction to its final status."""

import time
from collections.abc import Callable, Iterator

from devtools.merchant.client import Deadline, Response, expect, read
from devtools.merchant.errors import PlatformError, UnreachableError
from services.common.transaction import FINAL, Transaction

# A payment at the sandbox takes some 20 ms, a retried one seconds.
_POLL_SECONDS_MIN = 0.01
_POLL_SECONDS_MAX = 0.5


def follow(
    get: Callable[[], Response], deadline: Deadline
) -> Iterator[tuple[Response, Transaction]]:
    """Polls until the transaction is final or the deadline has passed.

    Continues while the platform is briefly unavailable.

    Raises:
        PlatformError: the platform refuses, or is still unavailable at the deadline.
    """
    interval_seconds = _POLL_SECONDS_MIN
    trouble: PlatformError | None = None
    while deadline.seconds_left():
        time.sleep(min(interval_seconds, deadline.seconds_left()))
        interval_seconds = min(interval_seconds * 1.5, _POLL_SECONDS_MAX)
        try:
            response = expect(get(), 200)
        except PlatformError as error:
            is_passing = error.status == 429 or error.status >= 500
            if not (is_passing or isinstance(error, UnreachableError)):
                raise
            # A request cut off by the deadline is no error: the transaction is still open.
            trouble = error if deadline.seconds_left() else trouble
            continue
        trouble = None
        transaction = read(Transaction, response)
        yield response, transaction
        if transaction.status in FINAL:
            return
    if trouble is not None:
        raise trouble
