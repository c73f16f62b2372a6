"""All payments, latest first."""

from datetime import datetime
from typing import Any

from nicegui import ui

from devtools.console.live import Live
from devtools.console.parts import PAYMENT_SLOT, STATUS_SLOT, TIME_SLOT, choice, table
from devtools.console.sources import EXAMINED_MAX, Sources
from devtools.merchant.report import duration, money
from services.common.currencies import EXPONENTS
from services.common.transaction import FINAL, Transaction

_ROWS_MAX = 500
_ROWS_PER_PAGE = 50
STATUSES = ("queued", "processing", "captured", "declined", "failed")
_COLUMNS = (
    ("at", "Time (UTC)", "mono"),
    ("id", "Payment", "mono"),
    ("merchant", "Merchant", ""),
    ("amount", "Amount", "number"),
    ("status", "Status", ""),
    ("method", "Method", "wide mono"),
    ("attempts", "Attempts", "wide number"),
    ("took", "Took", "wide number"),
)
_NONE = "No payments yet. Send one on the page Try it, or with `merchant pay 1250 USD --as alice`."
_NO_MATCH = "No payment matches this filter."


def page(sources: Sources) -> None:
    """The list with its filters."""
    with ui.row():
        merchant = choice("Merchant", sorted(sources.merchants().values()))
        status = choice("Status", STATUSES)
        currency = choice("Currency", sorted(EXPONENTS))
        note = ui.label().classes("hint")
    filters = (merchant, status, currency)
    slots = {"at": TIME_SLOT, "id": PAYMENT_SLOT, "status": STATUS_SLOT}
    listing = table(_COLUMNS, slots=slots, none=_NONE, rows_per_page=_ROWS_PER_PAGE)

    def matches(payment: Transaction) -> bool:
        return status.value in {None, payment.status} and currency.value in {None, payment.currency}

    def show(data: tuple[list[dict[str, Any]], bool]) -> None:
        payments, cut = data
        listing.rows = [row(payment) for payment in payments]
        none = _NO_MATCH if any(filter_.value for filter_ in filters) else _NONE
        listing.props(f'no-data-label="{none}"')
        note.text = f"Searched the latest {EXAMINED_MAX:,} payments." if cut else ""

    listed = Live(lambda: sources.payments(merchant.value, matches, _ROWS_MAX), show)
    for filter_ in filters:
        filter_.on_value_change(listed.refresh)


def row(payment: dict[str, Any]) -> dict[str, Any]:
    """A payment as the table shows it."""
    return {
        "at": payment["created_at"][5:19].replace("T", " "),
        "id": payment["id"],
        "merchant": payment["merchant"],
        "amount": money(payment["amount"], payment["currency"]),
        "status": payment["status"],
        "method": payment["payment_method"],
        "attempts": payment.get("attempts", 0),
        "took": elapsed(payment),
    }


def elapsed(payment: dict[str, Any]) -> str:
    """The time from acceptance to the last change; empty if open, or a time is unreadable."""
    if payment["status"] not in FINAL:
        return ""
    try:
        first, last = map(datetime.fromisoformat, (payment["created_at"], payment["updated_at"]))
        return duration((last - first).total_seconds() * 1000)
    except (ValueError, TypeError):  # changed by hand; TypeError: only one has a time zone
        return ""
