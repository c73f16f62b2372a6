"""Parses the Core API's data in Redis, which may have been edited or corrupted by hand."""

import uuid
from typing import Any

import redis
import structlog
from pydantic import ValidationError
from pydantic_core import from_json

from services.common.problems import Problem, Unavailable
from services.common.transaction import Credit, Transaction

_log = structlog.get_logger()


def transaction(transaction_id: str, record: Any) -> Transaction | None:
    """Parses a record; None if it is missing, or corrupt, which is logged.

    Raises a reply that is an error, unless the key has another type, which counts as corrupt.
    """
    if isinstance(record, redis.RedisError):
        if not str(record).startswith("WRONGTYPE"):
            raise record
        reason = str(record)
    elif not record:
        return None
    else:
        try:
            return Transaction.model_validate(record)
        except ValidationError as error:
            reason = _reason(error)
    _log.error("unreadable record", transaction_id=transaction_id, reason=reason)
    return None


def credit(entry: str) -> Credit | None:
    """Parses a ledger entry; None if it is corrupt."""
    try:
        return Credit.model_validate_json(entry)
    except ValidationError as error:
        _log.error("unreadable ledger entry", reason=_reason(error))
        return None


def points(text: str | None) -> int:
    """Parses a user's points; raises Unavailable if they are not a number."""
    try:
        return int(text or 0)
    except ValueError:
        _log.error("unreadable points", value=str(text)[:200])
        raise Unavailable("Your points are temporarily unavailable.") from None


def id_in(response: str | None) -> str:
    """Extracts the transaction id from a stored response."""
    try:
        return str(uuid.UUID(from_json(response or "")["id"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        _log.error("unreadable stored response", response=str(response)[:200])
        raise Problem(
            409,
            "This Idempotency-Key was used before, but its stored response is unreadable. Check in "
            "the list of transactions whether the payment was accepted; this request was not.",
            code="idempotency-answer-unreadable",
        ) from None


def _reason(error: ValidationError) -> str:
    """The first fault, without the value: `amount: Input should be a valid integer`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ": ".join([*map(str, first["loc"]), first["msg"]])[:200]
