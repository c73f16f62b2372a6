"""A transaction's trace, read from the console's store: one row for each span."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from devtools.catalog import CONSOLE
from devtools.console import waterfall
from devtools.console.waterfall import Row, Span
from devtools.merchant.client import Client, Deadline
from devtools.merchant.errors import UnreachableError
from devtools.merchant.report import Screen
from devtools.terminal import columns
from services.common.transaction import Transaction

_SPANS = TypeAdapter(list[Span])
_SHOWN_CHARACTERS_MAX = 200


def console_url(router_url: str) -> str:
    """The console of the stack with this router."""
    parts = urlsplit(router_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"http://{parts.hostname}:{CONSOLE.port(port)}"


def trace(transaction_id: str, url: str, deadline: Deadline) -> tuple[list[Row], str]:
    """The rows of a transaction's spans, or a note why there are none."""
    try:
        with Client(url, deadline) as client:
            response = client.send("GET", f"/api/traces/{transaction_id}")
        spans = _SPANS.validate_python(response.document["spans"])
    except UnreachableError:
        return [], f"the console at {url} does not respond: `platform status`; is CONSOLE on?"
    except (KeyError, ValidationError):
        return [], f"what answers at {url} is no console of this version"
    note = "the console has no spans of it: they are kept from its start on, for some days"
    return waterfall.rows(spans), "" if spans else note


def show(rows: Sequence[Row], note: str, transaction: Transaction, screen: Screen) -> None:
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
    if note:
        screen.say(f"note: {note}")
