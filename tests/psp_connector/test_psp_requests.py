"""The requests of the PSP client, and their destination."""

import contextlib
import dataclasses
import itertools
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import pytest
import structlog

from devtools import preflight
from services.common.currencies import EXPONENTS
from services.common.settings import SettingsError
from services.psp_connector.bounded import proxies_for
from services.psp_connector.psp import Captured, Refused
from services.psp_connector.stripe_psp import AmountError, stripe_amount
from services.psp_sandbox.payments import read_payment
from tests.http_service import Service
from tests.psp_connector.http_psp import CHARGE, client, reply
from tests.psp_sandbox.sandbox import PAYMENT


def test_what_the_psp_is_sent(
    psp: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends a confirmed PaymentIntent with transaction id as key and both ids as metadata.

    The `default login x password y` of the user's netrc does not replace the key.
    """
    (tmp_path / "netrc").write_text("default login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    good = {"id": "pi_1", "object": "payment_intent", "status": "succeeded"}
    psp.reply = reply(200, good)
    assert Captured("pi_1") == client(psp.url).charge(CHARGE)
    [seen] = psp.seen
    assert (seen.method, seen.path) == ("POST", "/v1/payment_intents")
    assert CHARGE.transaction_id == seen.headers["idempotency-key"]
    assert seen.headers["x-request-id"] == "req-1"
    assert seen.headers["authorization"] == "Bearer sk_test_of_this_test"
    assert {
        "amount": ["1250"],
        "currency": ["usd"],
        "payment_method": ["pm_card_visa"],
        "confirm": ["true"],
        "automatic_payment_methods[enabled]": ["true"],
        "automatic_payment_methods[allow_redirects]": ["never"],
        "metadata[transaction_id]": [CHARGE.transaction_id],
        "metadata[request_id]": ["req-1"],
    } == parse_qs(seen.body.decode())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8004", None),
        ("http://127.8.9.1:8004", None),
        ("http://[::1]:8004", None),
        ("https://localhost:8004", None),
        ("https://psp.localhost", None),
        ("https://api.stripe.com", "http://proxy:1"),
        ("http://psp.example", "http://proxy:1"),
        ("http://direct.example", None),
        ("http://localhost.example", "http://proxy:1"),
    ],
)
def test_a_proxy_is_for_an_external_psp(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: str | None
) -> None:
    """The loopback and hosts in `no_proxy` are called directly."""
    monkeypatch.setenv("http_proxy", "proxy:1")
    monkeypatch.setenv("all_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "direct.example")
    assert expected == proxies_for(url).get(url.partition(":")[0])
    assert len(proxies_for(url)) <= 1


def test_a_proxy_is_logged_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its login: otherwise only the PSP seems not to respond."""
    monkeypatch.setenv("all_proxy", "http://me:hunter2@proxy:1")
    with structlog.testing.capture_logs() as lines:
        client("https://api.stripe.com")
    [line] = lines
    assert (line["event"], line["proxy"]) == ("PSP calls use a proxy", "http://<secret>@proxy:1")


@pytest.mark.parametrize(
    ("proxy", "printed"),
    [
        ("socks5://me:hunter2@proxy:1", "socks5://<secret>@proxy:1"),  # needs a missing package
        ("http://me:hunter2@127.0.0.1:bad", "<secret>"),
        ("http://me:hunter2@:1", "http://<secret>@:1"),
        ("http://me:hunter2[@proxy:1", "http://<secret>@proxy:1"),
        ("http://me:hunter2\uff1a@proxy:1", "http://<secret>@proxy:1"),
    ],
)
def test_an_unusable_proxy_is_refused(
    monkeypatch: pytest.MonkeyPatch, proxy: str, printed: str
) -> None:
    """Preflight and the connector refuse it at the start, without its password."""
    monkeypatch.setenv("all_proxy", proxy)
    url = "https://api.stripe.com"
    with pytest.raises(SettingsError, match=f"is '{printed}': must be"):
        client(url)
    [fault] = preflight.wrong_proxy({"PSP_URL": url, "all_proxy": proxy})
    assert (f"is '{printed}': must be" in fault, "hunter2" in fault) == (True, False)


@pytest.mark.parametrize(
    ("amount", "currency", "sent"),
    [
        (1250, "HUF", 1250),
        (500, "JPY", 500),
        (5, "ISK", 500),
        (5, "UGX", 500),
        (1200, "MGA", 12),
        (5120, "KWD", 5120),
        (1250, "MGA", "amount_not_representable: Stripe takes MGA in multiples of 100"),
        (5124, "KWD", "amount_not_representable: Stripe takes KWD in multiples of 10"),
        (1000, "IQD", "currency_not_supported: Stripe does not support IQD"),
        (10_000, "CLF", "currency_not_supported: Stripe does not support CLF"),
        (1, "UYI", "currency_not_supported: Stripe does not support UYI"),
        (1250, "usd", "currency_not_supported: Stripe does not support usd"),
    ],
)
def test_the_amount_is_in_stripes_unit(amount: int, currency: str, sent: int | str) -> None:
    """Amounts are converted or, if Stripe cannot represent them, refused."""
    if isinstance(sent, int):
        assert stripe_amount(amount, currency) == sent
        return
    with pytest.raises(AmountError, match=sent):
        stripe_amount(amount, currency)


def test_an_amount_that_is_refused_is_not_sent(psp: Service) -> None:
    """The transaction fails, without a call."""
    outcome = client(psp.url).charge(dataclasses.replace(CHARGE, currency="IQD"))
    refused = Refused("currency_not_supported: Stripe does not support IQD", is_sent=False)
    assert (outcome, psp.seen) == (refused, [])


def test_the_sandbox_accepts_every_amount_sent() -> None:
    """The adapter sends no amount in any currency that breaks Stripe's rules."""
    for currency, amount in itertools.product(EXPONENTS, (1, 10, 123_450, 120_000)):
        with contextlib.suppress(AmountError):
            sent = stripe_amount(amount, currency)
            form = PAYMENT | {"amount": str(sent), "currency": currency.lower()}
            assert read_payment(urlencode(form).encode()).amount == sent
