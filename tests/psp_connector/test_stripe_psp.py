"""The real `stripe` library with a server that sends any response."""

import gzip
import time
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from services.psp_connector.psp import Captured, Declined, Refused, Transient
from tests.http_service import Reply, Service
from tests.psp_connector.http_psp import CHARGE, client, error, reply
from tests.support import CLOSED_PORT

GOOD: dict[str, Any] = {"id": "pi_1", "status": "succeeded"}
# Nothing received does not contradict the request.
UNPAID: dict[str, Any] = GOOD | {"status": "requires_payment_method", "amount_received": 0}
WRONG = "invalid_request_error"
OTHER = Transient("the response does not match the request")
UNREADABLE = Transient("unreadable response: AttributeError")
KEY = "sk_test_of_this_test"  # that of the client
ECHO = f"Bearer {KEY}"
MASKED = "<secret>"
HTML = "<html>a proxy's page</html>"
PAID: dict[str, Any] = UNPAID | {"amount_received": 1250}
OTHERS: dict[str, Any] = {"metadata": {"transaction_id": "t"}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, GOOD, Captured("pi_1")),
        (200, GOOD | {"status": "processing"}, Transient("the PSP is still processing it")),
        (200, GOOD | {"status": "requires_action"}, Declined("authentication_required", "pi_1")),
        (200, GOOD | {"status": "canceled"}, Refused("unexpected status canceled")),
        (200, UNPAID | {"last_payment_error": None}, Declined("card_declined", "pi_1")),
        (
            200,
            UNPAID | {"last_payment_error": {"code": "card_declined", "decline_code": "lost_card"}},
            Declined("lost_card", "pi_1"),
        ),
        (
            402,
            error("card_error", decline_code="lost_card", payment_intent={"id": "pi_2"}),
            Declined("lost_card", "pi_2"),
        ),
        (402, error("card_error", code="expired_card"), Declined("expired_card")),
        (402, error("card_error", payment_intent="pi_2"), Declined("card_declined")),
        (400, error(WRONG, code="resource_missing"), Refused("HTTP 400 resource_missing")),
        (402, error("card_error", decline_code=ECHO, code="lost"), Declined("lost")),
        (400, error(WRONG, code=ECHO), Refused(f"HTTP 400 {WRONG}")),
        (400, error(ECHO, code=["lost"]), Refused("HTTP 400 error")),
        (200, GOOD | {"id": ECHO}, Captured(f"Bearer {MASKED}")),
        (200, UNPAID | {"id": [KEY]}, Declined("card_declined", f"['{MASKED}']")),
        (400, error(KEY), Refused(f"HTTP 400 {MASKED}")),
        (402, error("card_error", code=KEY, payment_intent={"id": KEY}), Declined(*[MASKED] * 2)),
        (400, error("idempotency_error"), Transient("HTTP 400 idempotency_error")),
        *[(n, error(WRONG), Transient(f"HTTP {n}")) for n in (409, 424, 429)],
        *[(n, error(WRONG), Transient(f"HTTP {n}", is_unseen=True)) for n in (401, 403)],
        *[(n, error("api_error"), Transient(f"HTTP {n}")) for n in (500, 503)],
        *[(n, HTML, Transient(f"HTTP {n}")) for n in (200, 502)],
        *[(404, body, Transient("HTTP 404", is_unseen=True)) for body in (HTML, error(WRONG))],
        (407, "", Transient("HTTP 407")),
        (400, [], Transient("HTTP 400")),
        (200, {}, UNREADABLE),
        (200, [], UNREADABLE),
        (200, {"status": "succeeded"}, UNREADABLE),
        (402, {"error": "no"}, UNREADABLE),
        *[(200, GOOD | {"id": id_}, OTHER) for id_ in (None, "")],
        (200, GOOD | {"object": "charge"}, OTHER),
        (200, GOOD | {"amount": 1251}, OTHER),
        (200, GOOD | {"amount_received": 1}, OTHER),
        (200, GOOD | {"currency": "jpy"}, OTHER),
        (200, GOOD | {"metadata": {"transaction_id": "t"}}, OTHER),
        *[(200, body, OTHER) for body in (UNPAID | OTHERS, PAID, PAID | {"status": "canceled"})],
        *[
            (402, error("card_error", payment_intent=body), OTHER)
            for body in (UNPAID | OTHERS, PAID)
        ],
        *[
            (402, error("card_error", payment_intent=GOOD | {"status": status}), OTHER)
            for status in ("succeeded", "processing", "requires_capture")
        ],
        (200, GOOD | {"status": "done"}, OTHER),
        (
            402,
            error("card_error", payment_intent={"status": {}}),
            Transient("unreadable response: TypeError"),
        ),
        (402, {"error": {"message": "quota exceeded"}}, Transient("HTTP 402")),
        (400, {"error": {}}, Transient("HTTP 400")),
        (402, error(WRONG), Refused(f"HTTP 402 {WRONG}")),
    ],
)
def test_each_response_has_its_outcome(psp: Service, status: int, body: Any, expected: Any) -> None:
    """A response is captured, declined with the PSP's code, refused, or worth a retry.

    The library does not retry by itself.
    """
    psp.reply = reply(status, body)
    assert expected == client(psp.url).charge(CHARGE)
    assert len(psp.seen) == 1


@pytest.mark.parametrize(
    ("interim", "outcome", "connections"),
    [(100, Captured("pi_1"), 1), (103, Captured("pi_1"), 1), (101, Transient("HTTP 101"), 2)],
)
def test_an_interim_response_is_not_the_final_one(
    psp: Service, interim: int, outcome: Captured | Transient, connections: int
) -> None:
    """The final response must not be read as that of the connection's next payment.

    After 101 the connection is closed: what follows is not HTTP.
    """
    bounded = client(psp.url)
    psp.reply = replace(reply(200, GOOD), interim=interim)
    assert bounded.charge(CHARGE) == outcome
    psp.reply = reply(400, error(WRONG))
    assert bounded.charge(CHARGE) == Refused(f"HTTP 400 {WRONG}")
    assert psp.connections == connections


def test_no_cookie_is_sent(psp: Service) -> None:
    """A PSP's cookies would join the payments of all merchants, and could grow without end."""
    bounded = client(psp.url)
    psp.reply = reply(200, GOOD, **{"Set-Cookie": "a=b"})
    for _ in range(2):
        assert bounded.charge(CHARGE) == Captured("pi_1")
    assert "cookie" not in psp.last().headers


def test_a_redirect_is_not_followed(psp: Service) -> None:
    """It could send the payment elsewhere, or turn it into a GET that reads as captured."""
    psp.reply = reply(307, {}, Location=f"{psp.url}/elsewhere")
    assert Transient("HTTP 307") == client(psp.url).charge(CHARGE)
    assert [seen.path for seen in psp.seen] == ["/v1/payment_intents"]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_response_without_end_fills_no_memory(psp: Service, encoding: str) -> None:
    """Reading and unpacking stop at 1 MiB, and the next call works."""
    body = b'{"id": "pi_1", "status": "succeeded"' + b" " * 20_000_000 + b"}"
    body = gzip.compress(body, 1) if encoding == "gzip" else body
    psp.reply = Reply(headers=(("Content-Encoding", encoding),), body=body)
    bounded = client(psp.url)
    tracemalloc.start()
    try:
        assert Transient("no response") == bounded.charge(CHARGE)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    psp.reply = reply(200, GOOD)
    assert Captured("pi_1") == bounded.charge(CHARGE)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("-1", 0.0), ("soon", 0.0), ("9e99", 3600.0),
                           ("nan", 0.0), ("inf", 0.0)],
)  # fmt: skip
def test_retry_after_is_honoured_within_a_bound(
    psp: Service, retry_after: str, seconds: float
) -> None:
    """The delay is the PSP's, at most an hour; invalid values are ignored."""
    psp.reply = reply(429, error(WRONG), **{"Retry-After": retry_after})
    assert Transient("HTTP 429", seconds) == client(psp.url).charge(CHARGE)


def test_the_library_prints_nothing(
    psp: Service, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With STRIPE_LOG, which it reads at its import, it would print what the PSP sends."""
    monkeypatch.setattr("stripe._util.STRIPE_LOG", "debug")
    psp.reply = reply(402, error("card_error", code="card_declined"))
    assert isinstance(client(psp.url).charge(CHARGE), Declined)
    assert capfd.readouterr() == ("", "")


def test_no_psp_is_transient() -> None:
    """A refused connection does not fail the transaction."""
    expected = Transient("no response", is_unseen=True)
    assert client(f"http://127.0.0.1:{CLOSED_PORT}").charge(CHARGE) == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"object": "list", "data": []}, True),
        (401, error("api_error"), False),
        (503, error("api_error"), False),
        (403, {"error": "no"}, False),
    ],
)
def test_a_probe_needs_a_valid_response(
    psp: Service, status: int, body: Any, *, expected: bool
) -> None:
    """The PSP is available if its payments can be read, which a key that may charge always can."""
    psp.reply = reply(status, body)
    assert expected is client(psp.url).is_available()
    client(psp.url).charge(CHARGE)
    assert [seen.path.partition("?")[0] for seen in psp.seen] == ["/v1/payment_intents"] * 2


@pytest.mark.parametrize(
    ("body", "proxied"),
    [(b"", False), (b'{"id": "pi_1", "status": "succeeded"' + b" " * 1000 + b"}", True)],
    ids=["header", "body, by a proxy"],
)
def test_a_response_that_trickles_is_cut_off(
    psp: Service, monkeypatch: pytest.MonkeyPatch, body: bytes, *, proxied: bool
) -> None:
    """A call with a slow header or body ends in time, and the next one works."""
    psp.reply = Reply(body=body, trickle_seconds=0.05)
    if proxied:
        monkeypatch.setenv("http_proxy", psp.url)
    patient = client("http://psp.example" if proxied else psp.url, timeout_seconds=0.1)
    began = time.monotonic()
    assert isinstance(patient.charge(CHARGE), Transient)
    assert time.monotonic() - began < 10, "not within a minute, as the whole response would take"
    psp.reply = reply(200, GOOD)
    assert Captured("pi_1") == patient.charge(CHARGE)
    time.sleep(0.2)
    assert Captured("pi_1") == patient.charge(CHARGE)
    assert psp.connections == 2, "an idle connection is not cut off"
