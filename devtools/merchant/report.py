"""A merchant's output: money, times, a line per hop."""

from datetime import UTC, datetime
from decimal import Decimal

from devtools.merchant.errors import PlatformError
from devtools.terminal import Output
from services.common.currencies import EXPONENTS
from services.common.transaction import FINAL, Transaction

_MS_PER_SECOND = 1000


def money(amount: int, currency: str) -> str:
    """`USD 12.50` for 1250 cents: the major unit, with the decimals ISO 4217 gives it."""
    if currency not in EXPONENTS:
        return f"{currency} {amount} (smallest unit)"
    return f"{currency} {Decimal(amount).scaleb(-EXPONENTS[currency]):f}"


def points(count: int) -> str:
    """`12 points`."""
    return f"{count} point" if count == 1 else f"{count} points"


def duration(ms: float) -> str:
    """`35 ms`; from 1000 ms, `1.42 s`."""
    return f"{ms:.0f} ms" if ms < _MS_PER_SECOND else f"{ms / _MS_PER_SECOND:.2f} s"


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PlatformError(f"the platform sent an invalid time: {text!r}") from None


def _ms(begin: str, end: str) -> float:
    return (_time(end) - _time(begin)).total_seconds() * 1000


class Screen(Output):
    """Prints transactions."""

    def hop(self, name: str, time: str, text: str = "") -> None:
        """Prints a hop of a transaction."""
        self.say(f"{name:<11}{time:>9}  {text}".rstrip())

    def events(self, transaction: Transaction, seen: int = 0) -> None:
        """Prints the timeline after the first `seen` events."""
        for event in transaction.timeline[seen:]:
            more = event.model_dump(exclude={"event", "at"}, exclude_none=True)
            details = "  ".join(f"{name} {value}" for name, value in more.items())
            self.hop(event.event, f"+{duration(_ms(transaction.created_at, event.at))}", details)

    def outcome(self, transaction: Transaction, still: str = "still open") -> None:
        """Prints the last line; `still` is its text for a transaction that is not final."""
        facts = [transaction.status, money(transaction.amount, transaction.currency)]
        if transaction.status == "captured":
            facts.append(points(transaction.loyalty_points or 0))
        elif transaction.status == "declined":
            facts.append(transaction.decline_code or "no decline code")
        elif transaction.status == "failed":
            facts.append(f"attempts: {transaction.attempts}")
        took = f"in {duration(_ms(transaction.created_at, transaction.updated_at))}"
        facts.append(took if transaction.status in FINAL else still)
        self.say("  ".join(facts), transaction.status)
