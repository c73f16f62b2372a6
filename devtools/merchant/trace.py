"""A transaction's trace, read from the console's store: one row for each span."""

from collections.abc import Mapping, Sequence

from devtools.address import state_folder
from devtools.console import waterfall
from devtools.console.spans import FILE, SpanStore
from devtools.console.waterfall import Row
from devtools.merchant.report import Screen
from devtools.terminal import columns
from services.common.transaction import Transaction

_SHOWN_CHARACTERS_MAX = 200
_NO_SPANS = (
    "the console has no spans of it: it keeps those it receives while it runs, for some days"
)


def trace(transaction_id: str, environ: Mapping[str, str]) -> list[Row]:
    """The rows of a transaction's spans; none if the checkout's console has none."""
    path = state_folder(environ) / FILE
    return waterfall.rows(SpanStore(path).of_transaction(transaction_id)) if path.exists() else []


def show(rows: Sequence[Row], transaction: Transaction, screen: Screen) -> None:
    """Prints the spans, or without any the record's timeline, and the result."""
    screen.say(f"transaction  {transaction.id}")
    for trace_id in dict.fromkeys(row.span.trace_id for row in rows):
        screen.say(f"trace        {trace_id}")
    cells = [
        (
            f"    +{row.offset_ms:.1f}",
            row.span.service,
            f"{row.ms:.1f} ms",
            f"{'  ' * row.depth}{row}"[:_SHOWN_CHARACTERS_MAX],
        )
        for row in rows
    ]
    for line in columns(cells, right=(0, 2)):
        screen.say(line)
    if not rows:
        screen.events(transaction)
    screen.outcome(transaction)
    if not rows:
        screen.say(f"note: {_NO_SPANS}")
