"""Accepts and reads transactions in Redis (schema: `services/common/store.py`)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import redis
import structlog
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import from_json

from services.common import store
from services.common.clock import now_ms, rfc3339
from services.common.currencies import EXPONENTS
from services.common.web import to_json
from services.core_api.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.common.clock import Clock

_log = structlog.get_logger()

AMOUNT_MAX = 99_999_999
IDEMPOTENCY_SECONDS = 24 * 3600
PAGE_MAX = 100


class KeyReusedError(Exception):
    """The Idempotency-Key was used with another request."""


class QueueFullError(Exception):
    """QUEUE_LIMIT transactions are open."""


class UnreadableError(Exception):
    """Corrupt data in Redis; the message is for the caller."""


class CursorError(ValueError):
    """Not a cursor issued by this API."""


def _whole_number(value: object) -> object:
    """Accepts `100` or `"100"` (as HTTPie sends), not `1e2`, `100.0`, `"+1"`, `true`."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a whole number in the currency's smallest unit, or digits as text")


# Up to 20 digits, at most 8 of them significant.
_AMOUNT: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": AMOUNT_MAX},
        {"type": "string", "pattern": "^0{0,12}[1-9][0-9]{0,7}$"},
    ]
}


def _currency(value: str) -> str:
    if value not in EXPONENTS:
        raise ValueError("must be an ISO 4217 code in force, in upper case, such as USD")
    return value


_PAYMENT_METHOD = "pm_[A-Za-z0-9_]{1,64}"


def _payment_method(value: str) -> str:
    # Not `Field(pattern=…)`, for a readable error message.
    if not re.fullmatch(_PAYMENT_METHOD, value):
        raise ValueError("must be one of Stripe's test names, such as pm_card_visa")
    return value


class TokenInBody(BaseModel):
    """The only field parsed before authentication."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    token: Annotated[str, Field(max_length=8192)] | None = Field(
        default=None, description="instead of the Authorization header"
    )


class TransactionRequest(TokenInBody):
    """A request to create a transaction."""

    model_config = ConfigDict(extra="forbid")

    amount: Annotated[
        int, Field(ge=1, le=AMOUNT_MAX), BeforeValidator(_whole_number), WithJsonSchema(_AMOUNT)
    ] = Field(description="in the currency's smallest unit")
    currency: Annotated[str, AfterValidator(_currency)] = Field(
        description="ISO 4217", json_schema_extra={"enum": [*sorted(EXPONENTS)]}
    )
    payment_method: Annotated[str, AfterValidator(_payment_method)] = Field(
        default="pm_card_visa",
        description="one of Stripe's test names, or the sandbox's",
        json_schema_extra={"pattern": f"^{_PAYMENT_METHOD}$"},
    )

    def fingerprint(self) -> str:
        """A hash that is equal for equal requests."""
        fields = json.dumps([self.amount, self.currency, self.payment_method])
        return hashlib.sha256(fields.encode()).hexdigest()


@dataclass(frozen=True)
class Accepted:
    """The JSON response to a request, and whether it is a replay of an earlier one."""

    transaction_id: str
    response: str
    replayed: bool


class Transactions:
    """Transactions and loyalty points of all users."""

    def __init__(
        self,
        client: store.Client,
        queue_limit: int,
        *,
        clock: Clock = time.time,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._redis = client
        self._queue_limit = queue_limit
        self._clock = clock
        self._new_id = new_id
        script = client.register_script(store.script(__file__, "accept.lua"))
        self._accept = GroupCommit(client, script)

    def accept(
        self, user_id: int, request: TransactionRequest, request_id: str, key: str | None
    ) -> Accepted:
        """Stores and queues a transaction atomically.

        Raises:
            KeyReusedError: the key was used with another request.
            QueueFullError: too many are open; nothing was written.
            UnreadableError: the key was used before, but its stored response is unreadable.
            redis.RedisError: Redis is unavailable or rejects the write.
        """
        transaction_id = str(self._new_id())
        created_ms = now_ms(self._clock)
        created_at = rfc3339(created_ms)
        keys = [
            store.transaction_key(transaction_id),
            store.index_key(user_id),
            store.QUEUE,
            store.RETRIES,
        ]
        args = [
            transaction_id, user_id, request.amount, request.currency, request.payment_method,
            created_at, f"{created_ms:013d}:{transaction_id}", store.event("queued", created_ms),
            request_id, self._queue_limit,
        ]  # fmt: skip
        response = _response(transaction_id, user_id, request, created_at)
        if key is not None:
            keys.append(store.idempotency_key(user_id, key))
            args += [request.fingerprint(), response, IDEMPOTENCY_SECONDS]
        outcome, earlier_response = self._accept(keys=keys, args=args)
        if outcome == "mismatch":
            raise KeyReusedError
        if outcome == "full":
            raise QueueFullError
        if outcome == "replayed":
            return Accepted(_id_in(earlier_response), earlier_response, replayed=True)
        return Accepted(transaction_id, response, replayed=False)

    def get(self, user_id: int, transaction_id: str) -> dict[str, Any] | None:
        """Returns the transaction; None if missing or owned by another user."""
        try:
            record = self._redis.hgetall(store.transaction_key(transaction_id))
        except redis.ResponseError as error:
            record = error
        found = _public(transaction_id, record)
        return found if found and found["user_id"] == user_id else None

    def page(
        self, user_id: int, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Returns up to `limit` of the user's transactions, newest first, and the next cursor.

        Raises:
            CursorError: invalid cursor.
        """
        start = f"({_decode(cursor, _INDEX_MEMBER)}" if cursor else "+"
        members = self._members(store.index_key(user_id), start, limit + 1)
        pipeline = self._redis.pipeline(transaction=False)
        ids = [member.partition(":")[2] for member in members[:limit]]
        for transaction_id in ids:
            pipeline.hgetall(store.transaction_key(transaction_id))
        found = map(_public, ids, pipeline.execute(raise_on_error=False))
        more = len(members) > limit
        own = [one for one in found if one and one["user_id"] == user_id]
        return own, _encode(members[limit - 1]) if more else None

    def _members(self, index: str, start: str, count: int) -> list[str]:
        """Returns up to `count` index members from `start` on; skips malformed ones."""
        found: list[str] = []
        for skipped in range(0, _MALFORMED_PAGES_MAX * count, count):
            members = self._redis.zrevrangebylex(index, start, "-", start=skipped, num=count)
            found += filter(_INDEX_MEMBER.fullmatch, members)
            if len(found) >= count or len(members) < count:
                break
        return found[:count]

    def loyalty(
        self, user_id: int, limit: int, cursor: str | None
    ) -> tuple[int, list[dict[str, Any]], str | None]:
        """Returns the user's points, the newest credits, and the next cursor.

        Raises:
            CursorError: invalid cursor.
            UnreadableError: the points are not a number.
        """
        # The ledger is append-only, so indexes are stable.
        before = int(_decode(cursor, _LEDGER_INDEX)) if cursor else None
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.get(store.points_key(user_id))
            pipeline.llen(store.ledger_key(user_id))
            points, length = pipeline.execute()
        stop = min(length if before is None else before, length)
        start = max(stop - limit, 0)
        entries = self._redis.lrange(store.ledger_key(user_id), start, stop - 1) if stop else []
        newest_first = filter(None, map(_credit, reversed(entries)))
        return _points(points), list(newest_first), _encode(str(start)) if start else None


def _points(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        _log.error("unreadable points", value=str(text)[:200])
        raise UnreadableError("Your points are temporarily unavailable.") from None


def _credit(entry: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        if isinstance(credit := from_json(entry), dict):
            return credit
    _log.error("unreadable ledger entry", entry=entry[:200])
    return None


def _id_in(response: str | None) -> str:
    """Extracts the transaction id from a stored response."""
    try:
        return str(uuid.UUID(from_json(response or "")["id"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        _log.error("unreadable stored response", response=str(response)[:200])
        raise UnreadableError(
            "This Idempotency-Key was used before, but its stored response is unreadable. Check in "
            "the list of transactions whether the payment was accepted; this request was not."
        ) from None


def _public(transaction_id: str, record: Any) -> dict[str, Any] | None:
    """Converts a record to its public form; None if missing or corrupt.

    A corrupt record is logged and does not hide the other transactions.

    Raises:
        redis.RedisError: the reply is an error other than WRONGTYPE.
    """
    if isinstance(record, redis.RedisError) and not str(record).startswith("WRONGTYPE"):
        raise record
    if not record:
        return None
    try:
        transaction = store.public(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = repr(error)
    else:
        if transaction.keys() >= _REQUIRED:
            return transaction
        reason = f"without {', '.join(sorted(_REQUIRED - transaction.keys()))}"
    _log.error("unreadable record", transaction_id=transaction_id, reason=reason[:200])
    return None


def _response(
    transaction_id: str, user_id: int, request: TransactionRequest, created_at: str
) -> str:
    """The new transaction as JSON: what `store.public` returns for accept.lua's record."""
    document = to_json(
        {
            "id": transaction_id,
            "user_id": user_id,
            "amount": request.amount,
            "currency": request.currency,
            "payment_method": request.payment_method,
            "status": "queued",
            "created_at": created_at,
            "updated_at": created_at,
            "attempts": 0,
            "timeline": [{"event": "queued", "at": created_at}],
        }
    )
    return document.decode()


# Written by accept.lua; other fields are set later.
_REQUIRED = frozenset(
    {"id", "user_id", "amount", "currency", "payment_method", "status", "created_at", "updated_at"}
)
_INDEX_MEMBER = re.compile(r"[0-9]{13}:[0-9a-f-]{36}")
# Pages of malformed index members after which a listing ends.
_MALFORMED_PAGES_MAX = 10
_LEDGER_INDEX = re.compile(r"[1-9][0-9]{0,12}")


def _encode(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def _decode(cursor: str, pattern: re.Pattern[str]) -> str:
    try:
        position = base64.b64decode(
            cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
        text = position.decode("ascii")
    except (binascii.Error, ValueError):
        raise CursorError from None
    if not pattern.fullmatch(text):
        raise CursorError
    return text
