"""Queue entries and transaction records, validated, and results of attempts.

Entries and records may have been edited by hand. Everything is validated before the charge: a bad
value found later would leave a captured payment that can never be finished.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind
from pydantic import BaseModel, ValidationError

from services.common import store, tracing
from services.common.clock import rfc3339
from services.common.transaction import Amount, Currency, PaymentMethod, UserId
from services.psp_connector.psp import IDEMPOTENCY_KEY_HOURS, Charge

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{12}Z")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VALUE_CHARACTERS_MAX = 40


class _Record(BaseModel):
    """The fields of a record that a charge needs."""

    user_id: UserId
    amount: Amount
    currency: Currency
    payment_method: PaymentMethod
    attempts: int
    created_at: str = ""
    attempted_at: str = ""
    psp: str = ""
    request_id: str = ""
    not_captured_at: str = ""
    attempt_traceparent: str = ""
    """The traceparent of the previous attempt."""


RECORD_FIELDS = tuple(_Record.model_fields)


class UnreadableError(ValueError):
    """Not chargeable; the message is the reason for the dead letter."""


@dataclass(frozen=True)
class Entry:
    """A queue entry, held by a connector or set aside for its merchant."""

    id: str
    fields: Mapping[str, str]

    @cached_property
    def transaction_id(self) -> str:
        text = self.fields.get("transaction_id", "")
        return text if _UUID.fullmatch(text) else ""

    @property
    def is_repeated(self) -> bool:
        """Whether there may be uncounted attempts: after a replay, or a sweep of restored data."""
        return not {"swept", "replayed"}.isdisjoint(self.fields)

    @property
    def merchant(self) -> str:
        """The merchant whose share of the slots it uses; any text if written by hand."""
        return self.fields.get("user_id", "")

    @property
    def ids(self) -> dict[str, str]:
        request_id = self.fields.get("request_id", "")[:64]
        return {"request_id": request_id, "transaction_id": self.transaction_id}


@dataclass(frozen=True)
class Work:
    """An attempt in flight: the charge and its queue entry."""

    entry_id: str
    user_id: int
    attempt: int
    charge: Charge
    merchant: str = ""
    is_first: bool = False
    """Whether no PSP has seen an earlier attempt."""
    span: Span = field(default=INVALID_SPAN, compare=False)

    @property
    def ids(self) -> dict[str, str]:
        charge = self.charge
        ids = {"request_id": charge.request_id, "transaction_id": charge.transaction_id}
        trace_id = tracing.trace_id(self.span)
        return ids | {"trace_id": trace_id} if trace_id else ids


@dataclass(frozen=True)
class RetryResult:
    """No definite response; retry after the delay."""

    reason: str
    delay_seconds: float
    is_unseen: bool = False
    """Whether the PSP has certainly not seen this attempt."""


@dataclass(frozen=True)
class FinalResult:
    """The attempt ended the transaction."""

    status: str
    psp_reference: str = ""
    decline_code: str = ""
    points: int = 0
    reason: str = ""
    """Why it failed; also the reason of the dead letter."""

    def details(self) -> list[str | int]:
        points = self.points if self.status == "captured" else ""
        named = {
            "psp_reference": self.psp_reference,
            "decline_code": self.decline_code,
            "loyalty_points": points,
        }
        return [part for name, value in named.items() if value != "" for part in (name, value)]


Result = FinalResult | RetryResult


def is_old(
    created_at: str | None, attempted_at: str | None, not_captured_at: str | None, now: int
) -> bool:
    """Whether the PSP may no longer know a transaction's idempotency key at `now`, in ms.

    The PSP has known the key since the first attempt: `attempted_at` or, if that is missing, any
    time since `created_at`. At `not_captured_at` an operator confirmed that nothing was captured.
    Times are RFC 3339; a malformed one counts as old.
    """
    known_since = rfc3339(now - IDEMPOTENCY_KEY_HOURS * 3_600_000)
    return max(_time(attempted_at or created_at), _time(not_captured_at)) < known_since


def _time(text: str | None) -> str:
    return text if text and _TIME.fullmatch(text) else ""


def read_claimed(reply: Sequence[str]) -> list[Entry]:
    """Parses claim.lua's reply."""
    entries = []
    for entry_id, text in zip(reply[::2], reply[1::2], strict=True):
        flat = json.loads(text)
        entries.append(Entry(entry_id, dict(zip(flat[::2], flat[1::2], strict=True))))
    return entries


def read_record(entry: Entry, record: Sequence[str | None], psp: str, now: int, span: Span) -> Work:
    """Parses begin.lua's reply, `record`, for an entry that would be charged at `psp`.

    Raises UnreadableError if begin.lua rejected it, a field is invalid, or it may have been charged
    at another PSP or so long ago that this one no longer knows its idempotency key.
    """
    if len(record) == 1:
        raise UnreadableError(record[0])
    unseen, *fields = record
    values = dict(zip(RECORD_FIELDS, fields, strict=True))
    try:
        parsed = _Record.model_validate({n: v for n, v in values.items() if v is not None})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        text = (values[name] or "")[:_VALUE_CHARACTERS_MAX] or "missing"
        raise UnreadableError(f"unreadable record: {name} is {text}") from None
    _check_earlier_attempts(parsed, psp, now)
    # Sent as a header to the PSP.
    request_id = parsed.request_id if _REQUEST_ID.fullmatch(parsed.request_id) else ""
    charge = Charge(
        entry.transaction_id, request_id, parsed.amount, parsed.currency, parsed.payment_method
    )
    span.set_attributes({"platform.attempt": parsed.attempts, "enduser.id": str(parsed.user_id)})
    tracing.link(span, parsed.attempt_traceparent)
    is_first = unseen == "1" and not entry.is_repeated
    return Work(entry.id, parsed.user_id, parsed.attempts, charge, entry.merchant, is_first, span)


def _check_earlier_attempts(parsed: _Record, psp: str, now: int) -> None:
    # begin.lua has just recorded the PSP and time of a first attempt.
    if parsed.psp != psp:
        raise UnreadableError("first attempted at another PSP, which may have captured it")
    if is_old(parsed.created_at, parsed.attempted_at, parsed.not_captured_at, now):
        when = f"over {IDEMPOTENCY_KEY_HOURS} hours ago"
        raise UnreadableError(f"first attempted {when}: the PSP may have captured it")


def start_span(entry: Entry, partition: store.Partition, connector: str) -> Span:
    """Starts the span of an attempt, and records the span of its wait in the queue."""
    traceparent = entry.fields.get("traceparent", "")
    ids = {
        **partition.attributes,
        "messaging.message.id": entry.id,
        "platform.transaction.id": entry.transaction_id,
        "platform.request_id": entry.fields.get("request_id", ""),
    }
    queued_ms = int(entry.id.partition("-")[0])
    tracing.span(
        f"wait {store.QUEUE}", attributes=ids, parent=traceparent, start_ms=queued_ms
    ).end()
    ids |= {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": store.GROUP,
        "messaging.client.id": connector,
    }
    return tracing.span(f"process {store.QUEUE}", SpanKind.CONSUMER, ids, parent=traceparent)
