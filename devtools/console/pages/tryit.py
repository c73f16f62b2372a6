"""Try it: sends one payment and shows request and response, or sends many."""

import json
import uuid
from typing import Any

from nicegui import run, ui

from devtools.console.burst import COUNT_MAX, RATE_MAX, Burst
from devtools.console.live import Live
from devtools.console.parts import button, card, code
from devtools.console.sources import TROUBLE, Sources, sentence
from devtools.merchant.client import Client, Deadline, Response, Session
from services.common.currencies import EXPONENTS
from services.psp_sandbox.behaviours import PAYMENT_METHODS

_SECONDS_MAX = 20.0


class Form:
    """The fields of a payment."""

    def __init__(self, merchants: list[str]) -> None:
        with ui.row():
            self.merchant = ui.select(merchants, label="Merchant", value=merchants[0])
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
            with self.key.add_slot("append"):
                ui.button(icon="casino", on_click=self._new_key, color=None).props(
                    'flat round dense size=sm aria-label="New idempotency key"'
                )
        for field in (self.merchant, self.amount, self.currency, self.method, self.key):
            field.props("outlined dense options-dense").classes("field col-grow")

    def _new_key(self) -> None:
        self.key.value = str(uuid.uuid4())

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
        form = Form(sorted(sources.merchants()))
        send = button("Send", solid=True).classes("self-start")
    exchange = ui.element("div").classes("columns")
    with card("A burst", f"at most {COUNT_MAX:,} payments, {RATE_MAX} per second"):
        _burst(form, sources.burst)

    async def pay() -> None:
        send.disable()
        try:
            answer: Any = await run.io_bound(_pay, sources, form)
        except TROUBLE as error:
            ui.notify(sentence(error), type="negative", multi_line=True)
            return
        finally:
            send.enable()
        exchange.clear()
        with exchange:
            _show(answer)

    send.on_click(pay)


def _pay(sources: Sources, form: Form) -> Response:
    with Client(sources.router_url, Deadline(_SECONDS_MAX)) as client:
        session = Session(client, form.merchant.value, sources.password)
        return session.send(
            lambda token: client.post_transaction(token, form.body(), form.key.value or None)
        )


def _show(answer: Response) -> None:
    with card("Request"):
        code(answer.sent, "text")
    with card(f"Answer: {answer.status}", f"{answer.ms:.0f} ms"):
        body = answer.body if isinstance(answer.body, dict) else {}
        if isinstance(id_ := body.get("id"), str):
            ui.link("Follow this payment →", f"/payments/{id_}")
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        code(f"{head}\n\n{json.dumps(answer.body, indent=2)}", "text")


def _burst(form: Form, burst: Burst) -> None:
    with ui.row():
        count = ui.number("Payments", value=100, min=1, max=COUNT_MAX, precision=0)
        rate = ui.number("Per second", value=20, min=1, max=RATE_MAX, precision=0)
        for field in (count, rate):
            field.props("outlined dense").classes("field")

    def start() -> None:
        burst.start(form.merchant.value, form.body(), int(count.value or 1), int(rate.value or 1))

    with ui.row():
        go = button("Start burst", start, solid=True)
        stop = button("Stop", burst.stop)
        said = ui.label().classes("hint")

    def show(state: tuple[bool, str]) -> None:
        runs, said.text = state
        go.set_enabled(not runs)
        stop.visible = runs

    Live(lambda: (burst.runs, str(burst)), show, seconds=0.5)
