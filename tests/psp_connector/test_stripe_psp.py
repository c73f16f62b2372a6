"""The real `stripe` library against a server that answers what a test wants."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import itertools
import json
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import pytest

from services.common.currencies import EXPONENTS
from services.common.settings import SettingsError
from services.psp_connector.bounded import proxies_for
from services.psp_connector.psp import Captured, Charge, Declined, Refused, Transient
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import AmountError, StripePsp, stripe_amount
from services.psp_sandbox.params import read_payment
from tests.psp_sandbox.sandbox import PAYMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHARGE = Charge("8b7e8b26-0000-4000-8000-000000000001", "req-1", 1250, "USD", "pm_card_visa")


class Psp(ThreadingHTTPServer):
    """Answers every request with `status`, `headers` and `body`, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes = b"{}"
        self.delay_seconds = 0.0
        self.trickle_seconds = 0.0
        self.seen: list[tuple[str, dict[str, str], dict[str, list[str]]]] = []

    def handle_error(self, *_args: Any) -> None:
        """A client that did not wait for the answer is what a test is about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Psp

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        form = parse_qs(self.rfile.read(length).decode())
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, headers, form))
        time.sleep(self.server.delay_seconds)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        if self.server.trickle_seconds:
            self.trickle()
            return
        self.end_headers()
        self.wfile.write(self.server.body)

    def trickle(self) -> None:
        """Sends the answer byte by byte: within its header, or, with a body, only that."""
        text = b"X-Very-Long: " + b"x" * 1000
        if self.server.body:
            self.end_headers()
            text = self.server.body
        else:
            self.flush_headers()
        for n in range(len(text)):
            self.wfile.write(text[n : n + 1])
            time.sleep(self.server.trickle_seconds)

    do_GET = do_POST  # noqa: N815  http.server's name

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def psp() -> Iterator[Psp]:
    server = Psp()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join(5)
    server.server_close()


def client(url: str, key: str = "sk_test_of_this_test") -> StripePsp:
    return StripePsp(
        ConnectorSettings.read(
            {
                "HTTP_PORT": "1",
                "REDIS_URL": "redis://127.0.0.1:1/0",
                "PSP_URL": url,
                "PSP_API_KEY": key,
                "PSP_TIMEOUT_SECONDS": "0.3",
            }
        )
    )


OTHER = Transient("the response is for another payment")


def error(kind: str, **more: Any) -> dict[str, Any]:
    return {"error": {"type": kind, "message": "no", **more}}


def test_what_the_psp_is_sent(psp: Psp) -> None:
    """A PaymentIntent confirmed at once, under the transaction's id, with both ids as metadata."""
    psp.body = b'{"id": "pi_1", "object": "payment_intent", "status": "succeeded"}'
    assert Captured("pi_1") == client(psp.url).charge(CHARGE)
    [(path, headers, form)] = psp.seen
    assert path == "/v1/payment_intents"
    assert CHARGE.transaction_id == headers["idempotency-key"]
    assert headers["x-request-id"] == "req-1"
    assert headers["authorization"] == "Bearer sk_test_of_this_test"
    assert {
        "amount": ["1250"],
        "currency": ["usd"],
        "payment_method": ["pm_card_visa"],
        "confirm": ["true"],
        "automatic_payment_methods[enabled]": ["true"],
        "automatic_payment_methods[allow_redirects]": ["never"],
        "metadata[transaction_id]": [CHARGE.transaction_id],
        "metadata[request_id]": ["req-1"],
    } == form


def test_a_netrc_does_not_replace_the_key(
    psp: Psp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`default login x password y` in the user's netrc is none of the PSP's business."""
    (tmp_path / "netrc").write_text("default login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    psp.body = b'{"id": "pi_1", "object": "payment_intent", "status": "succeeded"}'
    client(psp.url).charge(CHARGE)
    [(_, headers, _)] = psp.seen
    assert headers["authorization"] == "Bearer sk_test_of_this_test"


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
def test_a_proxy_is_for_a_psp_elsewhere(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: str | None
) -> None:
    """Never for the loopback, nor for what `no_proxy` names."""
    monkeypatch.setenv("http_proxy", "proxy:1")
    monkeypatch.setenv("all_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "direct.example")
    assert expected == proxies_for(url).get(url.partition(":")[0])
    assert len(proxies_for(url)) <= 1


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socks proxy needs a package that is not here: said at the start, not at each charge."""
    monkeypatch.setenv("all_proxy", "socks5://me:hunter2@proxy:1")
    with pytest.raises(SettingsError, match="socks5://<secret>@proxy:1"):
        client("https://api.stripe.com")


@pytest.mark.parametrize(
    ("amount", "currency", "sent"),
    [
        (1250, "USD", "1250"),
        (1250, "HUF", "1250"),
        (500, "JPY", "500"),
        (5, "ISK", "500"),
        (5, "UGX", "500"),
        (1200, "MGA", "12"),
        (5120, "KWD", "5120"),
    ],
)
def test_the_amount_is_in_stripes_unit(psp: Psp, amount: int, currency: str, sent: str) -> None:
    """ISO 4217's smallest unit is converted where Stripe has another."""
    client(psp.url).charge(dataclasses.replace(CHARGE, amount=amount, currency=currency))
    assert psp.seen[0][2]["amount"] == [sent]


@pytest.mark.parametrize(
    ("amount", "currency", "code"),
    [
        (1250, "MGA", "amount_not_representable: Stripe takes MGA in multiples of 100"),
        (5124, "KWD", "amount_not_representable: Stripe takes KWD in multiples of 10"),
        (1000, "IQD", "currency_not_supported: Stripe takes no IQD"),
        (10_000, "CLF", "currency_not_supported: Stripe takes no CLF"),
        (1, "UYI", "currency_not_supported: Stripe takes no UYI"),
        (1250, "usd", "currency_not_supported: Stripe takes no usd"),
    ],
)
def test_no_other_amount_is_charged(psp: Psp, amount: int, currency: str, code: str) -> None:
    """What Stripe cannot be asked for is refused with a code, and Stripe is not asked."""
    charge = dataclasses.replace(CHARGE, amount=amount, currency=currency)
    assert client(psp.url).charge(charge) == Refused(code)
    assert psp.seen == []


def test_what_is_sent_the_sandbox_takes() -> None:
    """In no currency does the adapter send an amount that Stripe's rules refuse."""
    for currency, amount in itertools.product(EXPONENTS, (1, 10, 123_450, 120_000)):
        with contextlib.suppress(AmountError):
            sent = stripe_amount(amount, currency)
            form = PAYMENT | {"amount": str(sent), "currency": currency.lower()}
            assert read_payment(urlencode(form).encode()).amount == sent


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"id": "pi_1", "status": "succeeded"}, Captured("pi_1")),
        (200, {"id": "pi_1", "status": "processing"}, Transient("the PSP is still processing it")),
        (
            200,
            {"id": "pi_1", "status": "requires_action"},
            Declined("authentication_required", "pi_1"),
        ),
        (
            200,
            {"id": "pi_1", "status": "requires_payment_method", "last_payment_error": None},
            Declined("card_declined", "pi_1"),
        ),
        (
            200,
            {
                "id": "pi_1",
                "status": "requires_payment_method",
                "last_payment_error": {"code": "card_declined", "decline_code": "lost_card"},
            },
            Declined("lost_card", "pi_1"),
        ),
        (200, {"id": "pi_1", "status": "canceled"}, Refused("unexpected status canceled")),
        (
            402,
            error(
                "card_error",
                code="card_declined",
                decline_code="insufficient_funds",
                payment_intent={"id": "pi_2", "object": "payment_intent"},
            ),
            Declined("insufficient_funds", "pi_2"),
        ),
        (402, error("card_error", code="expired_card"), Declined("expired_card")),
        (
            400,
            error("invalid_request_error", code="resource_missing"),
            Refused("HTTP 400 resource_missing"),
        ),
        (400, error("idempotency_error"), Refused("HTTP 400")),
        (401, error("invalid_request_error"), Transient("HTTP 401")),
        (403, error("invalid_request_error"), Transient("HTTP 403")),
        (
            409,
            error("invalid_request_error", code="idempotency_key_in_use"),
            Transient("HTTP 409"),
        ),
        (429, error("invalid_request_error", code="rate_limit"), Transient("HTTP 429")),
        (500, error("api_error"), Transient("HTTP 500")),
        (503, error("api_error"), Transient("HTTP 503")),
        (502, "<html>bad gateway</html>", Transient("HTTP 502")),
        (200, {}, Transient("unreadable response: AttributeError")),
        (200, [], Transient("unreadable response: AttributeError")),
        (200, {"status": "succeeded"}, Transient("unreadable response: AttributeError")),
        (402, error("card_error", payment_intent="pi_2"), Declined("card_declined")),
        (402, {"error": "no"}, Transient("unreadable response: AttributeError")),
        (200, "<html>a proxy of somebody's</html>", Transient("HTTP 200")),
        (404, "<html>not the PSP</html>", Transient("HTTP 404")),
        (407, "", Transient("HTTP 407")),
        (400, [], Transient("HTTP 400")),
        (200, {"id": None, "status": "succeeded"}, OTHER),
        (200, {"id": "", "status": "succeeded"}, OTHER),
        (200, {"id": "pi_1", "status": "succeeded", "amount": 1251}, OTHER),
        (200, {"id": "pi_1", "status": "succeeded", "amount_received": 1}, OTHER),
        (200, {"id": "pi_1", "status": "succeeded", "currency": "jpy"}, OTHER),
        (200, {"id": "pi_1", "status": "succeeded", "metadata": {"transaction_id": "t"}}, OTHER),
    ],
)
def test_each_answer_has_its_outcome(psp: Psp, status: int, body: Any, expected: Any) -> None:
    """Captured, declined with the PSP's code, refused for good, or worth another attempt."""
    psp.status = status
    psp.body = (body if isinstance(body, str) else json.dumps(body)).encode()
    assert expected == client(psp.url).charge(CHARGE)


def test_a_redirect_is_not_followed(psp: Psp) -> None:
    """It would send the payment elsewhere, or read as captured what a GET finds there."""
    psp.status, psp.headers = 307, {"Location": f"{psp.url}/elsewhere"}
    assert Transient("HTTP 307") == client(psp.url).charge(CHARGE)
    assert [path for path, _, _ in psp.seen] == ["/v1/payment_intents"]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_response_without_end_fills_no_memory(psp: Psp, encoding: str) -> None:
    """One of more than 1 MiB is not read to its end, nor unpacked; the next call works."""
    body = b'{"id": "pi_1", "status": "succeeded"' + b" " * 200_000_000 + b"}"
    psp.headers = {"Content-Encoding": encoding}
    psp.body = gzip.compress(body, 1) if encoding == "gzip" else body
    bounded = client(psp.url)
    tracemalloc.start()
    try:
        assert Transient("no answer") == bounded.charge(CHARGE)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    psp.headers, psp.body = {}, b'{"id": "pi_1", "status": "succeeded"}'
    assert Captured("pi_1") == bounded.charge(CHARGE)


@pytest.mark.parametrize(
    ("given", "seconds"), [("2", 2.0), ("0.5", 0.5), ("-1", 0.0), ("soon", 0.0), ("9e99", 3600.0),
                           ("nan", 0.0), ("inf", 0.0)],
)  # fmt: skip
def test_retry_after_is_honoured_within_a_bound(psp: Psp, given: str, seconds: float) -> None:
    """Seconds as the PSP asks for them, never more than an hour, and no nonsense."""
    psp.status, psp.headers = 429, {"Retry-After": given}
    psp.body = json.dumps(error("invalid_request_error")).encode()
    assert Transient("HTTP 429", seconds) == client(psp.url).charge(CHARGE)


def test_no_answer_in_time_is_transient(psp: Psp) -> None:
    """PSP_TIMEOUT_SECONDS ends a call, once: the library does not repeat it."""
    psp.delay_seconds = 1
    assert Transient("no answer") == client(psp.url).charge(CHARGE)
    assert len(psp.seen) == 1


def test_nobody_there_is_transient() -> None:
    """A refused connection is no reason to fail a transaction."""
    assert Transient("no answer") == client("http://127.0.0.1:1").charge(CHARGE)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"object": "balance"}, True),
        (401, error("api_error"), False),
        (503, error("api_error"), False),
        (403, {"error": "no"}, False),
    ],
)
def test_answers_needs_a_good_answer(psp: Psp, status: int, body: Any, *, expected: bool) -> None:
    """The breaker's question is answered by a balance that can be read."""
    psp.status, psp.body = status, json.dumps(body).encode()
    assert expected is client(psp.url).is_available()
    assert psp.seen[0][0] == "/v1/balance"


@pytest.mark.parametrize(
    ("body", "proxied"),
    [(b"", False), (b'{"id": "pi_1", "status": "succeeded"' + b" " * 1000 + b"}", True)],
    ids=["header", "body, by a proxy"],
)
def test_an_answer_that_trickles_holds_nobody(
    psp: Psp, monkeypatch: pytest.MonkeyPatch, body: bytes, *, proxied: bool
) -> None:
    """A byte now and then, in the header or after it: the call ends, and the next one works."""
    psp.body, psp.trickle_seconds = body, 0.05
    if proxied:
        monkeypatch.setenv("http_proxy", psp.url)
    patient = client("http://psp.example" if proxied else psp.url)
    began = time.monotonic()
    assert isinstance(patient.charge(CHARGE), Transient)
    assert time.monotonic() - began < 10, "0.3 s are allowed; a minute it would have taken"
    psp.body, psp.trickle_seconds = b'{"id": "pi_1", "status": "succeeded"}', 0
    assert Captured("pi_1") == patient.charge(CHARGE)
    time.sleep(0.6)
    assert Captured("pi_1") == patient.charge(CHARGE), "an idle connection is not cut off"
