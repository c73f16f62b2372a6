"""The console's app: pages, OTLP receiver and guard."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nicegui import app, run, ui

from devtools.console import receiver
from devtools.console.burst import Burst
from devtools.console.frame import PAGES, add_style, frame
from devtools.console.guard import Guard
from devtools.console.pages import logs, payment, payments, psp, queue, rates, stack, tryit
from devtools.console.rates import INTERVAL_SECONDS
from devtools.console.settings import ConsoleSettings
from devtools.console.sources import Sources
from devtools.console.spans import SpanStore
from services.common.settings import HttpSettings


def build(settings: ConsoleSettings, spans: SpanStore, on_ready: Callable[[], None]) -> None:
    """Adds pages, routes and middleware to NiceGUI's app, one per process."""
    sources = Sources(settings, spans)
    add_pages(sources, Burst(sources.router_url, settings.merchant_password.get_secret_value()))
    app.routes[:0] = receiver.routes(spans)
    # Not ALLOWED_HOSTS: the console is for this machine alone.
    app.add_middleware(Guard, hosts=HttpSettings(http_port=settings.http_port).hosts())
    app.on_startup(on_ready)
    app.timer(INTERVAL_SECONDS, lambda: run.io_bound(sources.rates.step))


def add_pages(sources: Sources, burst: Burst) -> None:
    """One route for each page."""
    add_style()
    shows: dict[str, Callable[[Sources], None]] = {
        "Payments": payments.page,
        "Stack": stack.page,
        "Queue": queue.page,
        "Try it": partial(tryit.page, burst),
        "PSP": psp.page,
        "Logs": logs.page,
        "Rates": rates.page,
    }

    def add(path: str, title: str) -> None:
        @ui.page(path)
        def _page() -> None:
            with frame(title, sources.router_url):
                shows[title](sources)

    for path, title, _icon in PAGES:
        add(path, title)

    @ui.page("/payments/{transaction_id}")
    def _payment(transaction_id: str) -> None:
        with frame("Payment", sources.router_url):
            payment.page(sources, transaction_id)
