"""The job of the job queues: finishes a transaction in one call of a Lua script.

REDIS_URL names its Redis. Workers import the functions by name.
"""

import os
import time
from functools import cache
from types import ModuleType
from typing import Any

import redis
import redis.asyncio

from bench.copies import USER_ID
from services.common import scripts, store
from services.common.clock import now_ms, rfc3339
from services.common.transaction import Credit, Event

_RECORD_SECONDS = 90 * 86_400
_POINTS = 12


def end(transaction_id: str) -> None:
    """The job for a queue that runs threads."""
    _script(redis)(**_arguments(transaction_id))


async def end_async(transaction_id: str) -> None:
    """The same for a queue that runs coroutines."""
    await _script(redis.asyncio)(**_arguments(transaction_id))


async def end_by_saq(_context: Any, *, transaction_id: str) -> None:
    """The same, as SAQ calls it."""
    await end_async(transaction_id)


def _arguments(transaction_id: str) -> dict[str, list[Any]]:
    now = now_ms(time.time)
    at = rfc3339(now)
    credit = Credit(
        transaction_id=transaction_id, points=_POINTS, amount=1250, currency="USD", at=at
    )
    keys = [
        store.WHOLE.transaction(transaction_id),
        store.WHOLE.points(USER_ID),
        store.WHOLE.ledger(USER_ID),
    ]
    event, reference = Event.of("captured", now).to_json(), f"pi_{transaction_id}"
    args = [at, event, reference, _POINTS, credit.to_json(), _RECORD_SECONDS]
    return {"keys": keys, "args": args}


@cache
def _script(library: ModuleType) -> Any:
    client = library.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    return client.register_script(scripts.script(__file__, "jobs.lua").text)
