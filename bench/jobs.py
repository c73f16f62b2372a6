"""The job of the job queues: finishes a transaction in one call of a Lua script.

REDIS_URL names its Redis. Workers import the functions by name.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

import redis
import redis.asyncio

from bench.copies import USER_ID
from bench.started import Started
from services.common import store
from services.common.clock import now_ms, rfc3339
from services.common.transaction import Credit, Event

_RECORD_SECONDS = 90 * 86_400
_POINTS = 12
_started = Started()


def end(transaction_id: str) -> None:
    """The job for a queue that runs threads."""
    _started()
    keys, args = _call(transaction_id)
    _script()(keys=keys, args=args)


async def end_async(transaction_id: str) -> None:
    """The same for a queue that runs coroutines."""
    _started()
    keys, args = _call(transaction_id)
    await _script_async()(keys=keys, args=args)


async def end_by_saq(_context: Any, *, transaction_id: str) -> None:
    """The same, as SAQ calls it."""
    await end_async(transaction_id)


def _call(transaction_id: str) -> tuple[list[str], list[Any]]:
    now = now_ms(time.time)
    credit = Credit(
        transaction_id=transaction_id, points=_POINTS, amount=1250, currency="USD", at=rfc3339(now)
    )
    keys = [
        store.transaction_key(transaction_id), store.points_key(USER_ID), store.ledger_key(USER_ID),
    ]  # fmt: skip
    args = [
        rfc3339(now), Event.of("captured", now).to_json(), f"pi_{transaction_id}", _POINTS,
        credit.to_json(), _RECORD_SECONDS,
    ]  # fmt: skip
    return keys, args


@cache
def _script() -> Any:
    client = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    return client.register_script(store.script(__file__, "jobs.lua"))


@cache
def _script_async() -> Any:
    client = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    return client.register_script(store.script(__file__, "jobs.lua"))
