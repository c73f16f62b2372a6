"""Try it: sends one payment and shows request and response, or sends many."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from nicegui import ui

from devtools.console.live import act
from devtools.console.parts import button, card, code
from devtools.console.sources import Sources
from devtools.merchant.client import Client, Deadline, Response, Session
from devtools.merchant.errors import PlatformError
from services.common.currencies import EXPONENTS
from services.psp_sandbox.behaviours import PAYMENT_METHODS

COUNT_MAX = 1_000
RATE_MAX = 100
_RESPONSE_SECONDS_MAX = 20.0
# Shared by all bursts; the pages use other threads.
_THREADS = ThreadPoolExecutor(8)


class Form:
    """The fields of a payment."""

    def __init__(self, merchants: list[str]) -> None:
        with ui.row():
            self.merchant = ui.select(
                merchants, label="Merchant", value=next(iter(merchants), None)
            )
            self.amount = ui.input("Amount, smallest unit", value="1250")
            self.currency = ui.select(
                sorted(EXPONENTS), label="Currency", value="USD", with_input=True
            )
            self.method = ui.select(
                list(PAYMENT_METHODS),
                label="Payment method",
                value="pm_card_visa",
                with_input=True,
                new_value_mode="add-unique",
            )
            self.key = ui.input("Idempotency key")
        for field in (self.merchant, self.amount, self.currency, self.method, self.key):
            field.props("outlined dense options-dense").classes("field col-grow")

    def body(self) -> dict[str, Any]:
        """The request body; an invalid number is sent unchanged, to show its refusal."""
        text = (self.amount.value or "").strip()
        return {
            "amount": int(text) if text.isascii() and text.isdecimal() else text,
            "currency": self.currency.value,
            "payment_method": self.method.value,
        }


def page(sources: Sources) -> None:
    """The form, the exchange, and the burst."""
    with card("A payment"):
        form = Form(sorted(sources.merchants().values()))
        send = button("Send", solid=True).classes("self-start")
    exchange = ui.element("div").classes("columns")
    with card("A burst", f"at most {COUNT_MAX:,} payments, {RATE_MAX} per second"):
        _burst(form, sources)

    async def pay() -> None:
        send.disable()
        response = await act(partial(_pay, sources, form))
        send.enable()
        if response:
            exchange.clear()
            with exchange:
                _show(response)

    send.on_click(pay)


def _pay(sources: Sources, form: Form) -> Response:
    with Client(sources.router_url, Deadline(_RESPONSE_SECONDS_MAX)) as client:
        session = Session(client, form.merchant.value, sources.password)
        return session.send(
            lambda token: client.post_transaction(token, form.body(), form.key.value or None)
        )


def _show(response: Response) -> None:
    with card("Request"):
        code(response.sent, "text")
    with card(f"Response: {response.status}", f"{response.ms:.0f} ms"):
        if isinstance(id_ := response.document.get("id"), str):
            ui.link("Follow this payment →", f"/payments/{id_}")
        head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        code(f"{head}\n\n{json.dumps(response.body, indent=2)}", "text")


def _burst(form: Form, sources: Sources) -> None:
    """Sends many payments at a rate, as a merchant would; stops when the page is left."""
    with ui.row():
        count = ui.number("Payments", value=100, min=1, max=COUNT_MAX, precision=0)
        rate = ui.number("Per second", value=20, min=1, max=RATE_MAX, precision=0)
        for field in (count, rate):
            field.props("outlined dense").classes("field")
    running: list[asyncio.Future[Any]] = []
    with ui.row():
        go = button("Start burst", solid=True)
        stop = button("Stop", lambda: [burst.cancel() for burst in running])
        progress = ui.label().classes("hint")
    stop.visible = False

    async def start() -> None:
        total, per_second = _within(count), _within(rate)
        merchant, body = form.merchant.value, form.body()
        results: Counter[str] = Counter()
        go.disable()
        seconds_max = total / per_second + _RESPONSE_SECONDS_MAX
        with Client(sources.router_url, Deadline(seconds_max)) as client:
            session = Session(client, merchant, sources.password)

            async def send(number: int) -> None:
                await asyncio.sleep(number / per_second)
                if not progress.is_deleted:
                    results[await in_thread(_THREADS, _result, session, client, body)] += 1
                    outcomes = ", ".join(f"{count} {name}" for name, count in results.items())
                    progress.text = f"{results.total()} of {total} sent: {outcomes}"

            in_thread = asyncio.get_running_loop().run_in_executor
            running[:] = [asyncio.gather(*map(send, range(total)))]
            stop.visible = True
            with contextlib.suppress(asyncio.CancelledError):
                await running[0]
        go.enable()
        stop.visible = False

    go.on_click(start)


def _within(field: ui.number) -> int:
    return int(min(max(field.value or 1, field.min), field.max))


def _result(session: Session, client: Client, body: Mapping[str, Any]) -> str:
    try:
        status = session.send(lambda token: client.post_transaction(token, body)).status
    except PlatformError as error:
        return f"failed ({error.detail})"
    return "accepted" if status == 202 else f"refused ({status})"
