"""Accepts and reads transactions in Redis (schema: `services/common/store.py`)."""

import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from opentelemetry.trace import Span, SpanKind
from pydantic_core import to_json

from services.common import redis_client, scripts, store, tracing
from services.common.clock import Clock, now_ms, rfc3339
from services.common.problems import Problem, Unavailable
from services.common.transaction import Transaction
from services.core_api import records
from services.core_api.gate import Gate
from services.core_api.group_commit import GroupCommit
from services.core_api.models import Loyalty, Page, TransactionRequest

IDEMPOTENCY_SECONDS = 24 * 3600
PAGE_MAX = 100


@dataclass(frozen=True)
class Accepted:
    """The JSON response to a request, and whether it is a replay of an earlier one."""

    transaction_id: str
    response: str
    replayed: bool


@dataclass(frozen=True)
class _Lane:
    """The calls to one Redis node."""

    commit: GroupCommit
    gate: Gate
    replicas: Gate
    """For writes alone: reads wait for no replica."""


def _commit(lane: _Lane, keys: Sequence[str], args: Sequence[Any]) -> tuple[str, str]:
    try:
        with lane.replicas.passed(), lane.gate.passed():
            outcome, earlier_response = lane.commit(keys=keys, args=args)
    except redis.ResponseError as error:
        if isinstance(error, scripts.UnsureError) or not str(error).startswith("FULL"):
            raise
        raise Unavailable("The queue is full; this request was not accepted.") from None
    return outcome, earlier_response


class Transactions:
    """Transactions and loyalty points of all users."""

    def __init__(
        self,
        client: store.Client,
        queue_limit: int,
        partitions: Sequence[store.Partition] = (store.WHOLE,),
        *,
        replicas_min: int = 0,
        check: Callable[[], None] | None = None,
        clock: Clock = time.time,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._redis = client
        self._queue_limit = queue_limit
        self._partitions = partitions
        self._check = check
        """Checks that Redis has these partitions; None once it has passed."""
        self._clock = clock
        self._new_id = new_id
        self._script = scripts.script(__file__, "accept.lua")
        self._replicas_min = replicas_min
        self._lanes: dict[str, _Lane] = {}

    def check(self) -> None:
        """Raises one of `redis_client.ERRORS` if Redis is unavailable or mismatched."""
        if check := self._check:
            check()
            self._check = None
        redis_client.ping(self._redis)

    def _partition(self, user_id: int) -> store.Partition:
        if self._check:
            self.check()
        return store.partition_of(user_id, self._partitions)

    def accept(
        self, user_id: int, request: TransactionRequest, request_id: str, key: str | None
    ) -> Accepted:
        """Stores and queues a transaction atomically.

        Raises Problem 422 if the key was used with another request, 409 if its stored response is
        unreadable, 503 if QUEUE_LIMIT transactions, or the merchant's share, are open.
        """
        created_ms = now_ms(self._clock)
        transaction_id = str(self._new_id())
        response, record = _queued(transaction_id, user_id, request, created_ms)
        partition = self._partition(user_id)
        keys = [
            partition.transaction(transaction_id),
            partition.index(user_id),
            partition.queue,
            partition.retries,
        ]
        replay: list[Any] = ["", "", ""]
        if key is not None:
            keys.append(partition.idempotency(user_id, key))
            replay = [request.fingerprint(), response, IDEMPOTENCY_SECONDS]
        span = _send_span(partition, transaction_id, user_id, request_id)
        args = [
            transaction_id, user_id, f"{created_ms:013d}:{transaction_id}", request_id,
            self._queue_limit, tracing.traceparent(span), *replay, *record,
        ]  # fmt: skip
        with tracing.use(span):
            outcome, earlier_response = _commit(self._lane(partition), keys, args)
        if outcome == "mismatch":
            detail = "This Idempotency-Key was used with another request; use a new one."
            raise Problem(422, detail, code="idempotency-key-reused")
        if outcome == "replayed":
            return Accepted(records.id_in(earlier_response), earlier_response, replayed=True)
        return Accepted(transaction_id, response, replayed=False)

    def _lane(self, partition: store.Partition) -> _Lane:
        """One for each node, so that an unavailable node does not delay the others."""
        name = scripts.lane(self._redis, partition)
        if name not in self._lanes:
            commit = GroupCommit(self._redis, self._script, self._replicas_min)
            gates = Gate(redis.TimeoutError), Gate(scripts.NotReplicatedError)
            # Another thread may have been faster.
            self._lanes.setdefault(name, _Lane(commit, *gates))
        return self._lanes[name]

    def get(self, user_id: int, transaction_id: str) -> Transaction | None:
        """Returns the transaction; None if missing or owned by another user."""
        partition = self._partition(user_id)
        try:
            with self._lane(partition).gate.passed():
                record = self._redis.hgetall(partition.transaction(transaction_id))
        except redis.ResponseError as error:
            record = error
        transaction = records.transaction(transaction_id, record)
        return transaction if transaction and transaction.user_id == user_id else None

    def page(self, user_id: int, limit: int, cursor: str | None) -> Page:
        """Up to `limit` of the user's transactions, newest first; Problem 422 for a bad cursor."""
        start = f"({_position(cursor, _INDEX_MEMBER)}" if cursor else "+"
        partition = self._partition(user_id)
        with self._lane(partition).gate.passed():
            members = self._members(partition.index(user_id), start, limit + 1)
            pipeline = self._redis.pipeline(transaction=False)
            ids = [member.partition(":")[2] for member in members[:limit]]
            for transaction_id in ids:
                pipeline.hgetall(partition.transaction(transaction_id))
            found = pipeline.execute(raise_on_error=False)
        transactions = map(records.transaction, ids, found)
        more = len(members) > limit
        return Page(
            transactions=[t for t in transactions if t and t.user_id == user_id],
            next_cursor=members[limit - 1] if more else None,
        )

    def _members(self, index: str, start: str, count: int) -> list[str]:
        """Returns up to `count` index members from `start` on; skips malformed ones."""
        valid: list[str] = []
        for skipped in range(0, _MALFORMED_PAGES_MAX * count, count):
            members = self._redis.zrevrangebylex(index, start, "-", start=skipped, num=count)
            valid += filter(_INDEX_MEMBER.fullmatch, members)
            if len(valid) >= count or len(members) < count:
                break
        return valid[:count]

    def loyalty(self, user_id: int, limit: int, cursor: str | None) -> Loyalty:
        """The user's points and newest credits; Problem 503 if the points are not a number."""
        # The ledger is append-only, so indexes are stable.
        before = int(_position(cursor, _LEDGER_INDEX)) if cursor else None
        partition = self._partition(user_id)
        # Not in a MULTI, which a full Redis refuses.
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.llen(partition.ledger(user_id))
        pipeline.get(partition.points(user_id))
        with self._lane(partition).gate.passed():
            length, points = pipeline.execute()
            stop = min(length if before is None else before, length)
            start = max(stop - limit, 0)
            entries = self._redis.lrange(partition.ledger(user_id), start, stop - 1) if stop else []
        return Loyalty(
            points=records.points(points),
            ledger=[credit for entry in reversed(entries) if (credit := records.credit(entry))],
            next_cursor=str(start) if start else None,
        )


def _send_span(
    partition: store.Partition, transaction_id: str, user_id: int, request_id: str
) -> Span:
    attributes = {
        **partition.attributes,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "platform.transaction.id": transaction_id,
        "platform.request_id": request_id,
        "enduser.id": str(user_id),
    }
    return tracing.span(f"send {store.QUEUE}", SpanKind.PRODUCER, attributes)


def _queued(
    transaction_id: str, user_id: int, request: TransactionRequest, created_ms: int
) -> tuple[str, list[str | int]]:
    """A new transaction as JSON, and its record as names and values, from a valid request."""
    created_at = rfc3339(created_ms)
    event = {"event": "queued", "at": created_at}
    fields = {
        "id": transaction_id, "user_id": user_id, **request.payment(), "status": "queued",
        "created_at": created_at, "updated_at": created_at, "attempts": 0,
    }  # fmt: skip
    response = to_json({**fields, "timeline": [event]}).decode()
    record = {**fields, "timeline": to_json(event).decode()}
    return response, [part for name_and_value in record.items() for part in name_and_value]


_INDEX_MEMBER = re.compile(r"[0-9]{13}:[0-9a-f-]{36}")
# Pages of malformed index members after which a listing ends.
_MALFORMED_PAGES_MAX = 10
_LEDGER_INDEX = re.compile(r"[1-9][0-9]{0,12}")


def _position(cursor: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(cursor):
        raise invalid_parameter("?cursor", "must be the next_cursor of an earlier response")
    return cursor


def invalid_parameter(pointer: str, detail: str) -> Problem:
    """A 422 for a query parameter."""
    errors = [{"pointer": pointer, "detail": detail}]
    return Problem(422, "A parameter is invalid; see errors.", errors=errors)
