"""One payment: waterfall, attempts, record, ledger entry, log lines, and a command to repeat it."""

import re
from typing import Any

from nicegui import ui

from devtools.console import waterfall
from devtools.console.live import Live
from devtools.console.pages.payments import elapsed
from devtools.console.parts import card, code, copy_button, log_rows, log_table, pairs
from devtools.console.sources import Payment, Sources
from devtools.loglines import Line
from devtools.merchant.report import duration, money, points
from services.common.transaction import FINAL

_TRANSACTION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LINES_MAX = 200
_LOG_SECONDS = 2.0
_SETTLED_SECONDS = 10.0
_NO_TRACE = (
    "No trace of this payment. The console keeps the spans that it receives while it runs; see "
    "OTEL_EXPORTER_OTLP_ENDPOINT in docs/configuration.md."
)


def page(sources: Sources, transaction_id: str) -> None:
    """The payment with this id, updated until the page is left."""
    ui.link("← All payments", "/")
    if not _TRANSACTION_ID.fullmatch(transaction_id):
        ui.label(f"There is no payment {transaction_id[:36]}.").classes("hint")
        return
    is_final = False
    container = ui.column()
    with card("Log lines", "of all processes, in time order"):
        lines = log_table("No log line mentions it.")

    def show(payment: Payment | None) -> None:
        nonlocal is_final
        is_final = payment is None or payment.record["status"] in FINAL
        container.clear()
        with container:
            if payment is None:
                ui.label(f"There is no payment {transaction_id[:36]}.").classes("hint")
            else:
                _payment(payment, sources.router_url)

    def show_lines(latest: list[Line]) -> None:
        lines.rows = log_rows(latest[:_LINES_MAX])

    Live(lambda: sources.payment(transaction_id), show)
    logged = Live(lambda: sources.lines(transaction_id), show_lines, seconds=_LOG_SECONDS)
    # Searching all log files is slow: stop once the payment is final.
    ui.timer(_SETTLED_SECONDS, lambda: setattr(logged.timer, "active", not is_final))


def _payment(payment: Payment, url: str) -> None:
    with ui.row():
        _head(payment)
    with card("Where the time went", "one row for each span; a click shows its attributes"):
        _waterfall(waterfall.rows(payment.spans))
    with ui.element("div").classes("columns"):
        with card("Timeline"), ui.element("div").classes("pairs"):
            _timeline(payment.record["timeline"])
        with card("Record"):
            pairs({k: v for k, v in payment.record.items() if k != "timeline"})
        with card("Loyalty ledger"):
            _ledger(payment)
        with card("Send it again"):
            code(payment.curl(url), "command")


def _head(payment: Payment) -> None:
    record = payment.record
    ui.label(money(record["amount"], record["currency"])).classes("text-h5")
    ui.label(record["status"]).classes(f"status status-{record['status']}")
    ui.label(f"{payment.merchant}, {record['payment_method']}, {elapsed(record)}").classes("hint")
    ui.label(record["id"]).classes("mono")
    copy_button(lambda: record["id"], "id")


def _waterfall(rows: list[waterfall.Row]) -> None:
    if not rows:
        ui.label(_NO_TRACE).classes("hint")
        return
    total_ms = max(0.001, *(row.offset_ms + row.ms for row in rows))
    with ui.element("div").classes("scale"):
        ui.label("0")
        ui.label(duration(total_ms / 2))
        ui.label(duration(total_ms))
    for row in rows:
        _span(row, total_ms)


def _span(row: waterfall.Row, total_ms: float) -> None:
    span = row.span
    left, width = row.offset_ms / total_ms * 100, max(row.ms / total_ms * 100, 0.3)
    details = ui.element("details").classes("span" + (" span-error" if span.is_error else ""))
    with details.style(f"--own: var(--{_colour(span.service)})"):
        with ui.element("summary"):
            with ui.row(wrap=False).style(f"padding-left: {row.depth * 0.7}rem"):
                ui.label(span.service).classes("process ellipsis")
                ui.label(str(row)).classes("what ellipsis")
            with ui.element("div").classes("track"):
                bar = ui.element("div").classes("bar")
                bar.style(f"left: {min(left, 99.7):.3f}%; width: {min(width, 100 - left):.3f}%")
            ui.label(f"{row.ms:.1f} ms").classes("span-ms")
        facts = {"starts at": f"+{row.offset_ms:.1f} ms", "kind": span.kind, "trace": span.trace_id}
        links = {"linked to trace": ", ".join(span.links)} if span.links else {}
        pairs({**facts, **links, **span.attributes})


def _colour(service: str) -> str:
    known = ("router", "auth-api", "core-api", "psp-connector", "psp-sandbox")
    return service if service in known else "other"


def _timeline(events: list[dict[str, Any]]) -> None:
    for event in events:
        details = {k: v for k, v in event.items() if k not in {"event", "at"}}
        ui.label(event["at"][11:23]).classes("hint mono")
        with ui.row():
            ui.label(event["event"]).classes(f"status status-{event['event']}")
            ui.label("  ".join(f"{name} {value}" for name, value in details.items()))


def _ledger(payment: Payment) -> None:
    if payment.credit:
        pairs({"points": points(payment.credit.points), "at": payment.credit.at})
    elif payment.record["status"] == "captured":
        ui.label("No entry among the merchant's latest credits.").classes("hint")
    else:
        ui.label("Only a captured payment earns points.").classes("hint")
