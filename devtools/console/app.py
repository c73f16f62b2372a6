"""The console's app: pages with their header, OTLP receiver and guard."""

from collections.abc import Callable
from pathlib import Path

from nicegui import app, run, ui

from devtools.console import receiver
from devtools.console.guard import Guard
from devtools.console.pages import logs, payment, payments, psp, queue, rates, stack, tryit
from devtools.console.rates import INTERVAL_SECONDS
from devtools.console.settings import ConsoleSettings
from devtools.console.sources import EXPECTED_ERRORS, Sources, message_for
from devtools.console.spans import SpanStore

PAGES: tuple[tuple[str, str, str, Callable[[Sources], None]], ...] = (
    ("/", "Payments", "receipt_long", payments.page),
    ("/stack", "Stack", "lan", stack.page),
    ("/queue", "Queue", "low_priority", queue.page),
    ("/try", "Try it", "send", tryit.page),
    ("/psp", "PSP", "account_balance", psp.page),
    ("/logs", "Logs", "subject", logs.page),
    ("/rates", "Rates", "show_chart", rates.page),
)


def build(settings: ConsoleSettings, spans: SpanStore) -> None:
    """Adds pages, routes and middleware to NiceGUI's app, one per process."""
    sources = Sources(settings, spans)
    ui.add_css(Path(__file__).with_name("style.css"), shared=True)
    for path, title, _icon, page in PAGES:
        _add_page(path, title, page, sources)

    @ui.page("/payments/{transaction_id}")
    def _payment(transaction_id: str) -> None:
        _header("Payment", sources.router_url)
        payment.page(sources, transaction_id)

    app.routes[:0] = receiver.routes(spans)
    app.add_middleware(Guard)
    app.timer(INTERVAL_SECONDS, lambda: run.io_bound(sources.rates.step))


def _add_page(path: str, title: str, page: Callable[[Sources], None], sources: Sources) -> None:
    @ui.page(path)
    def _page() -> None:
        _header(title, sources.router_url)
        try:
            page(sources)
        except EXPECTED_ERRORS as error:
            ui.label(message_for(error)).classes("trouble").props('role="alert"')


def _header(title: str, address: str) -> None:
    """Title and links of a page, in the system's colours."""
    ui.page_title(f"{title} · console")
    ui.dark_mode(None)
    with ui.header().classes("head"):
        ui.label("console").classes("text-weight-bold")
        with ui.element("nav").props('aria-label="Pages"'):
            for path, name, icon, _page in PAGES:
                current = ' aria-current="page"' if name == title else ""
                with ui.link(target=path).classes("tab").props(current):
                    ui.icon(icon).props("aria-hidden=true")
                    ui.label(name)
        ui.link(address.removeprefix("http://"), address, new_tab=True).classes("mono address")
