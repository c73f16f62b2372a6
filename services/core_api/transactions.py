"""Accepts transactions and shows them; all of it in Redis, see `services/common/store.py`."""

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
    """This Idempotency-Key was sent before with another request."""


class QueueFullError(Exception):
    """There are QUEUE_LIMIT open transactions."""


class UnreadableError(Exception):
    """What Redis holds is not what was written there; the text is for the caller."""


class CursorError(ValueError):
    """This is no cursor that was given out."""


def _whole_number(value: object) -> object:
    """`100` or `"100"` (as HTTPie sends), but not `1e2`, `100.0`, `"+1"`, `true`."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a whole number in the currency's smallest unit, or digits as text")


# 20 digits with leading zeros, of which 8 count.
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
    # Not `Field(pattern=…)`: a merchant is told in words what is wrong.
    if not re.fullmatch(_PAYMENT_METHOD, value):
        raise ValueError("must be one of Stripe's test names, such as pm_card_visa")
    return value


class TokenInBody(BaseModel):
    """The one field that is looked at before it is known who asks."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    token: Annotated[str, Field(max_length=8192)] | None = Field(
        default=None, description="instead of the Authorization header"
    )


class TransactionRequest(TokenInBody):
    """What a merchant asks for."""

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
        """Equal for requests that ask for the same."""
        asked = json.dumps([self.amount, self.currency, self.payment_method])
        return hashlib.sha256(asked.encode()).hexdigest()


@dataclass(frozen=True)
class Accepted:
    """The answer to a request, and whether it was given before."""

    transaction_id: str
    answer: str
    replayed: bool


class Transactions:
    """The transactions of all users."""

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
        self, user_id: int, wanted: TransactionRequest, request_id: str, idempotency_key: str | None
    ) -> Accepted:
        """Takes a transaction and queues it, in one step.

        Raises:
            KeyReusedError: the key came before with another request.
            QueueFullError: too many are open; nothing was written.
            UnreadableError: the key was used before, but its answer cannot be read.
            redis.RedisError: Redis is away or refuses.
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
            transaction_id, user_id, wanted.amount, wanted.currency, wanted.payment_method,
            created_at, f"{created_ms:013d}:{transaction_id}", store.event("queued", created_ms),
            request_id, self._queue_limit,
        ]  # fmt: skip
        answer = _first_answer(transaction_id, user_id, wanted, created_at)
        if idempotency_key is not None:
            keys.append(store.idempotency_key(user_id, idempotency_key))
            args += [wanted.fingerprint(), answer, IDEMPOTENCY_SECONDS]
        outcome, earlier_answer = self._accept(keys=keys, args=args)
        if outcome == "mismatch":
            raise KeyReusedError
        if outcome == "full":
            raise QueueFullError
        if outcome == "replayed":
            return Accepted(_id_in(earlier_answer), earlier_answer, replayed=True)
        return Accepted(transaction_id, answer, replayed=False)

    def get(self, user_id: int, transaction_id: str) -> dict[str, Any] | None:
        """The user's transaction of that id, or None: of another's nothing is told."""
        try:
            record = self._redis.hgetall(store.transaction_key(transaction_id))
        except redis.ResponseError as error:
            record = error
        shown = _readable(transaction_id, record)
        return shown if shown and shown["user_id"] == user_id else None

    def page(
        self, user_id: int, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Up to `limit` of the user's transactions, newest first, and the cursor of the next page.

        Raises:
            CursorError: the cursor is none of ours.
        """
        start = f"({_decode(cursor, _INDEX_MEMBER)}" if cursor else "+"
        members = self._members(store.index_key(user_id), start, limit + 1)
        pipeline = self._redis.pipeline(transaction=False)
        ids = [member.partition(":")[2] for member in members[:limit]]
        for transaction_id in ids:
            pipeline.hgetall(store.transaction_key(transaction_id))
        found = map(_readable, ids, pipeline.execute(raise_on_error=False))
        more = len(members) > limit
        own = [one for one in found if one and one["user_id"] == user_id]
        return own, _encode(members[limit - 1]) if more else None

    def _members(self, index: str, start: str, count: int) -> list[str]:
        """Up to `count` members from `start` on; what is none of ours is passed over."""
        found: list[str] = []
        for skipped in range(0, _FOREIGN_PAGES_MAX * count, count):
            members = self._redis.zrevrangebylex(index, start, "-", start=skipped, num=count)
            found += filter(_INDEX_MEMBER.fullmatch, members)
            if len(found) >= count or len(members) < count:
                break
        return found[:count]

    def loyalty(
        self, user_id: int, limit: int, cursor: str | None
    ) -> tuple[int, list[dict[str, Any]], str | None]:
        """The user's points, the newest credits they come from, and the cursor of the next page.

        Raises:
            CursorError: the cursor is none of ours.
            UnreadableError: the points are no number.
        """
        # The ledger only grows, at its right end: a place in it stays what it was.
        before = int(_decode(cursor, _LEDGER_PLACE)) if cursor else None
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
        raise UnreadableError("Your points cannot be read at the moment.") from None


def _credit(entry: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        if isinstance(credit := from_json(entry), dict):
            return credit
    _log.error("unreadable ledger entry", entry=entry[:200])
    return None


def _id_in(answer: str | None) -> str:
    """The transaction's id in a stored answer."""
    try:
        return str(uuid.UUID(from_json(answer or "")["id"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        _log.error("unreadable answer", answer=str(answer)[:200])
        raise UnreadableError(
            "This Idempotency-Key was used before, but its answer cannot be read. Look in the "
            "list of transactions whether the payment was accepted; nothing was now."
        ) from None


def _readable(transaction_id: str, record: Any) -> dict[str, Any] | None:
    """The record as it is shown; None when there is none, or none that can be read.

    What somebody broke by hand is logged, and does not hide the other transactions.

    Raises:
        redis.RedisError: it is the reply, and does not say that the key holds something else.
    """
    if isinstance(record, redis.RedisError) and not str(record).startswith("WRONGTYPE"):
        raise record
    if not record:
        return None
    try:
        shown = store.public(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = repr(error)
    else:
        if shown.keys() >= _ALWAYS:
            return shown
        reason = f"without {', '.join(sorted(_ALWAYS - shown.keys()))}"
    _log.error("unreadable record", transaction_id=transaction_id, reason=reason[:200])
    return None


def _first_answer(
    transaction_id: str, user_id: int, wanted: TransactionRequest, created_at: str
) -> str:
    """The new transaction, as `store.public` would show what accept.lua writes."""
    answer = to_json(
        {
            "id": transaction_id,
            "user_id": user_id,
            "amount": wanted.amount,
            "currency": wanted.currency,
            "payment_method": wanted.payment_method,
            "status": "queued",
            "created_at": created_at,
            "updated_at": created_at,
            "attempts": 0,
            "timeline": [{"event": "queued", "at": created_at}],
        }
    )
    return answer.decode()


# What accept.lua writes; the rest comes with the end.
_ALWAYS = frozenset(
    {"id", "user_id", "amount", "currency", "payment_method", "status", "created_at", "updated_at"}
)
_INDEX_MEMBER = re.compile(r"[0-9]{13}:[0-9a-f-]{36}")
# Pages of an index that may hold nothing of ours before a listing ends.
_FOREIGN_PAGES_MAX = 10
_LEDGER_PLACE = re.compile(r"[1-9][0-9]{0,12}")


def _encode(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _decode(cursor: str, form: re.Pattern[str]) -> str:
    try:
        place = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        text = place.decode("ascii")
    except (binascii.Error, ValueError):
        raise CursorError from None
    if not form.fullmatch(text):
        raise CursorError
    return text
