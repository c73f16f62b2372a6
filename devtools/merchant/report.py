"""Output for a terminal: money, times, a line per hop."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from services.common.currencies import EXPONENTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import TextIO

    from devtools.merchant.answers import Credit, Event, Transaction

_MS_OF_A_SECOND = 1000


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
    return f"{ms:.0f} ms" if ms < _MS_OF_A_SECOND else f"{ms / _MS_OF_A_SECOND:.2f} s"


def moment(at: datetime) -> str:
    """UTC, to the second."""
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


class Screen:
    """Writes lines, flushing each."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def say(self, text: str) -> None:
        """Prints a line, without control characters that could steer the terminal."""
        shown = "".join(c if c.isprintable() else "?" for c in text)
        print(shown, file=self._stdout, flush=True)

    def hop(self, name: str, time: str, text: str = "") -> None:
        """Prints a hop of a transaction."""
        self.say(f"{name:<11}{time:>9}  {text}".rstrip())

    def request(self, name: str, ms: float, request_id: str, text: str) -> None:
        """Prints a request of this client."""
        self.hop(name, duration(ms), f"request {request_id}  {text}")

    def events(self, transaction: Transaction, seen: int = 0) -> None:
        """Prints the timeline after the first `seen` events."""
        for event in transaction.timeline[seen:]:
            self.hop(event.event, _offset(transaction, event), _details(event))

    def outcome(self, transaction: Transaction, more: str = "") -> None:
        """Prints the last line."""
        facts = [transaction.status, money(transaction.amount, transaction.currency)]
        if transaction.status == "captured":
            facts.append(points(transaction.loyalty_points or 0))
        elif transaction.status == "declined":
            facts.append(transaction.decline_code or "no decline code")
        elif transaction.status == "failed":
            facts.append(f"attempts: {transaction.attempts}")
        self.say("  ".join([*facts, more or f"in {duration(transaction.milliseconds)}"]))

    def transaction(self, transaction: Transaction) -> None:
        """Prints all fields of a transaction."""
        self.say(f"transaction  {transaction.id}")
        self.say(f"created      {moment(transaction.created_at)}")
        self.say(f"method       {transaction.payment_method}")
        if transaction.psp_reference:
            self.say(f"reference    {transaction.psp_reference}")
        self.say(f"attempts     {transaction.attempts}")
        self.events(transaction)
        self.outcome(transaction, "" if transaction.is_final else "still open")

    def transactions(self, transactions: Sequence[Transaction]) -> None:
        """A line for each."""
        amounts = [money(each.amount, each.currency) for each in transactions]
        width = max(map(len, amounts), default=0)
        for each, amount in zip(transactions, amounts, strict=True):
            end = each.decline_code or (
                "" if each.loyalty_points is None else points(each.loyalty_points)
            )
            when = moment(each.created_at)
            self.say(f"{when}  {each.id}  {amount:>{width}}  {each.status:<10}  {end}".rstrip())

    def credits(self, ledger: Sequence[Credit]) -> None:
        """A line for each."""
        amounts = [money(each.amount, each.currency) for each in ledger]
        width = max(map(len, amounts), default=0)
        digits = max((len(str(each.points)) for each in ledger), default=0)
        for each, amount in zip(ledger, amounts, strict=True):
            credit = f"+{each.points:<{digits}}"
            self.say(f"{moment(each.at)}  {credit}  {amount:>{width}}  {each.transaction_id}")


def _offset(transaction: Transaction, event: Event) -> str:
    ms = (event.at - transaction.created_at).total_seconds() * 1000
    return f"+{duration(ms)}"


def _details(event: Event) -> str:
    return "  ".join(f"{name} {value}" for name, value in event.details.items())
