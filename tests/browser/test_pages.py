"""Each page of the console, as a user sees it; its layout on wide and narrow screens."""

import time
from typing import Any

import pytest

from tests.browser.person import PAGES, SEE_SECONDS_MAX, Person
from tests.stack.stack import Stack
from tests.support import wait_until

ALL_HOPS_SECONDS_MAX = 2


def paid(stack: Stack, username: str = "alice", **fields: Any) -> str:
    """A new payment's id."""
    return str(stack.pay(username, **fields).json()["id"])


def test_try_it_shows_the_exchange_and_leads_to_all_hops(person: Person) -> None:
    """Try it shows request and response without the token, and all hops within 2 s."""

    def shows_all_hops_soon() -> bool:
        person.opens("/try")
        person.types("Amount, smallest unit", "4200")
        person.clicks("Send")
        sent = person.sees("POST /transactions HTTP/1.1", "Response: 202")
        assert "authorization: Bearer <token>" in sent
        assert '"amount":4200' in sent.replace(" ", "")
        began = time.monotonic()
        person.clicks("Follow this payment →")
        person.sees("USD ", "captured", "router", "core-api", "psp-connector", "psp-sandbox")
        return time.monotonic() - began < ALL_HOPS_SECONDS_MAX

    wait_until(shows_all_hops_soon, seconds_max=SEE_SECONDS_MAX, what="a quick payment")
    id_ = person.browser.current_url.rpartition("/")[2]
    text = person.sees("Loyalty ledger", "42 points", "curl -s http://127.0.0.1", "transaction_id")
    assert id_ in text
    assert "password" not in text
    person.clicks("Copy command")
    person.sees("command copied")


def test_a_refusal_is_shown_unchanged(person: Person) -> None:
    """An invalid amount is sent as typed."""
    person.opens("/try")
    person.types("Amount, smallest unit", "12.50")
    person.clicks("Send")
    person.sees("Response: 422", "/amount", '"12.50"')


def test_payments_are_filtered(stack: Stack, person: Person) -> None:
    """Payments are filtered by merchant, status and currency; no match is reported."""
    ours = paid(stack, "becky", amount=700, currency="EUR")
    other = paid(stack, "becky", currency="CHF", payment_method="pm_card_chargeDeclined")
    stack.ended(other, "becky")
    stack.ended(ours, "becky")
    person.opens("/")
    person.sees(ours[:8], other[:8], "EUR 7.00")
    person.chooses("Merchant", "becky")
    person.chooses("Status", "captured")
    person.no_longer_sees(other[:8])
    person.sees(ours[:8])
    person.chooses("Status", "failed")
    person.sees("No payment matches this filter.")


def test_processes_are_stopped_and_started(person: Person, stack: Stack) -> None:
    """A stopped process is shown, and pages that need it show the remedy.

    The console's own row has no button: it would end before it could start itself.
    """
    person.opens("/stack")
    person.sees("router", "ready", "psp-sandbox", "MB", "auth-api", "console")
    buttons = person.browser.page_source
    assert "restart router" in buttons
    assert "restart console" not in buttons
    person.clicks("stop psp-sandbox")
    person.sees("psp-sandbox stopped")
    person.sees("down or external")
    person.opens("/psp")
    person.sees("The PSP sandbox does not respond.")
    person.opens("/stack")
    person.clicks("start psp-sandbox")
    wait_until(lambda: stack.healthy("psp-sandbox"), what="the sandbox")
    person.opens("/psp")
    person.no_longer_sees("does not respond")


def test_the_connector_is_scaled(person: Person) -> None:
    """The connector scales to two replicas and back."""
    person.opens("/stack")
    person.chooses("replicas", "2")
    person.sees("2 connectors")
    person.sees("psp-connector-0", "psp-connector-1")
    person.chooses("replicas", "1")
    person.no_longer_sees("psp-connector-1")


def test_a_dead_letter_is_shown_and_replayed(person: Person, stack: Stack) -> None:
    """The page shows a dead letter's reason and fields, and replays it."""
    id_ = paid(stack, payment_method="pm_sandbox_error_500")
    stack.ended(id_)
    person.opens("/queue")
    person.sees(id_[:8], "given up after 2 attempts: HTTP 500", "open entries", "connector")
    person.clicks("Show")
    person.sees("Dead letter", "transaction_id", id_)
    person.check_layout("dialog")
    person.clicks("Close")
    person.no_longer_sees("transaction_id")
    person.clicks("Replay")
    person.sees("Queued again")
    person.opens(f"/payments/{id_}")
    person.sees("replayed", "failed", "Only a captured payment earns points.")


def test_faults_are_switches_in_all_tabs(person: Person, stack: Stack) -> None:
    """`decline` declines each card until it is off; all tabs show it, without a reload."""
    person.opens("/psp")
    with person.another_tab():
        person.opens("/psp")
        person.clicks("Decline")
        person.sees("Faults on: Decline")
        id_ = paid(stack)
        assert stack.ended(id_)["status"] == "declined"
    person.finds("//*[@role='switch'][normalize-space()='Decline'][@aria-checked='true']")
    person.sees(id_[:8], "requests with a key")
    person.clicks("Decline")
    person.sees("All faults off")
    assert stack.ended(paid(stack))["status"] == "captured"


def test_logs_are_filtered_and_paused(person: Person, stack: Stack) -> None:
    """Logs are filtered by transaction; client text is never markup; a pause holds the page."""
    id_ = paid(stack)
    stack.ended(id_)
    evil = "/transactions/<img src=x onerror=document.title='evil'>"
    stack.http.get(evil)
    person.opens("/logs")
    person.sees("attempt", "onerror=document.title")
    assert "evil" not in person.browser.title
    person.clicks("Follow")
    person.types("Transaction id", id_)

    def is_alone() -> bool:
        lines = [line for line in person.text().splitlines() if "transaction_id=" in line]
        return any("outcome=captured" in line for line in lines) and all(id_ in s for s in lines)

    wait_until(is_alone, seconds_max=SEE_SECONDS_MAX, what="the lines of this payment alone")
    person.types("Transaction id", "")
    before = person.sees("onerror=document.title")
    later = paid(stack)
    with person.another_tab():
        person.opens("/logs")
        person.sees(later)
    assert person.text() == before


def test_a_burst_shows_in_picture_and_charts(person: Person) -> None:
    """The page counts responses; the picture and the charts show rates."""
    person.opens("/try")
    person.types("Payments", "60")
    person.types("Per second", "12")
    person.clicks("Start burst")
    person.sees("60 of 60 sent: 60 accepted")
    person.opens("/stack")
    script = "return document.querySelectorAll('.step-flows').length"
    wait_until(lambda: person.browser.execute_script(script), what="moving arrows")
    person.opens("/rates")
    person.sees("Payments per second", "p99, milliseconds", "Errors (5xx) per second")
    peak = (
        "const chart = getElement(document.querySelector('.chart').id.slice(1)).chart;"
        "return Math.max(0, ...chart.getOption().dataset[0].source.map((point) => point.accepted))"
    )
    wait_until(lambda: person.browser.execute_script(peak) > 1, what="a peak of accepted payments")


@pytest.fixture(scope="module")
def slow(stack: Stack) -> str:
    """A payment with a slow charge."""
    id_ = paid(stack, "becky", payment_method="pm_sandbox_slow")
    stack.ended(id_, "becky")
    return id_


@pytest.mark.parametrize("name", [*PAGES, "payment", "none"])
def test_a_page_fits_both_screens(person: Person, stack: Stack, slow: str, name: str) -> None:
    """Nothing overflows, everything can be clicked, no secret is in the page's source.

    SCREENSHOTS names a folder for pictures.
    """
    payment = {
        "payment": (f"/payments/{slow}", "Log lines"),
        "none": ("/payments/none", "is no payment"),
    }
    path, text = (PAGES | payment)[name]
    person.opens(path)
    person.sees(text)
    person.check_layout(name)
    for secret in ("jwt-secret", "redis-password", "sandbox-token"):
        assert (stack.state / secret).read_text().strip() not in person.browser.page_source
