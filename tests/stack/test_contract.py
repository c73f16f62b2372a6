"""The public contract through the router: each route, and a refusal of each kind.

What a service accepts and refuses in detail is tested in its own folder, and the router's own
refusals in tests/router.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from devtools.address import PORT_OFFSETS
from tests import support

if TYPE_CHECKING:
    import httpx

    from tests.stack.stack import Stack

PAYMENT = {"amount": 1250, "currency": "USD"}


def check_problem(response: httpx.Response, status: int, code: str) -> None:
    """Checks that the response is a problem document of that status and code."""
    document = response.json()
    assert (response.status_code, document["code"]) == (status, code), response.text
    assert document["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert document["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    assert "127.0.0.1" not in response.text


def test_a_token_for_name_and_password(stack: Stack) -> None:
    """POST /auth/token: 200 with token, type and lifetime."""
    body = {"username": "alice", "password": "password"}
    response = stack.http.post("/auth/token", json=body)
    assert response.status_code == 200
    assert response.json() == {
        "token": response.json()["token"], "token_type": "Bearer", "expires_in": 30,
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/transactions", "/transactions/", "/transactions/transaction"])
def test_a_payment_end_to_end(stack: Stack, path: str) -> None:
    """POST /transactions (and the older path): 202 at once, captured soon, 12 points more."""
    before = stack.points()
    response = stack.http.post(path, json=PAYMENT, headers=stack.bearer())
    assert response.status_code == 202
    assert response.headers["location"] == f"/transactions/{response.json()['id']}"
    record = stack.ended(response.json()["id"])
    assert (record["status"], record["loyalty_points"], record["attempts"]) == ("captured", 12, 1)
    assert record["psp_reference"].startswith("pi_")
    assert [e["event"] for e in record["timeline"]] == ["queued", "processing", "captured"]
    assert stack.points() == before + 12
    found = stack.http.get(response.headers["location"], headers=stack.bearer())
    assert found.json() == record


def test_httpie_form_of_a_payment(stack: Stack) -> None:
    """The token may come in the body and the amount as text, as HTTPie sends `amount=100`."""
    body = {"amount": "100", "currency": "USD", "token": stack.token()}
    assert stack.http.post("/transactions", json=body).status_code == 202


def test_transactions_are_listed_newest_first(stack: Stack) -> None:
    """GET /transactions: pages by cursor, newest first, the caller's only."""
    ids = []
    for _ in range(3):
        ids.append(stack.pay("becky").json()["id"])
        time.sleep(0.002)  # so that no two are of one millisecond
    headers = stack.bearer("becky")
    first = stack.http.get("/transactions", params={"limit": 2}, headers=headers).json()
    assert [t["id"] for t in first["transactions"]] == [ids[2], ids[1]]
    more = {"limit": 2, "cursor": first["next_cursor"]}
    second = stack.http.get("/transactions", params=more, headers=headers).json()
    assert second["transactions"][0]["id"] == ids[0]
    assert {t["user_id"] for t in first["transactions"] + second["transactions"]} == {2}


def test_loyalty_shows_each_credit(stack: Stack) -> None:
    """GET /transactions/loyalty: the newest credit is the last payment's."""
    paid = stack.ended(stack.pay(amount=500, currency="JPY").json()["id"])
    loyalty = stack.http.get("/transactions/loyalty", headers=stack.bearer()).json()
    newest = loyalty["ledger"][0]
    assert (newest["transaction_id"], newest["points"]) == (paid["id"], 500)


@pytest.mark.parametrize("path", ["/health", "/auth/health", "/transactions/health"])
def test_health(stack: Stack, path: str) -> None:
    """The health of the router and of each service, under the platform's own name too."""
    for headers in ({}, {"Host": f"platform.localhost:{stack.port}"}):
        response = stack.http.get(path, headers=headers)
        assert (response.status_code, response.json()["status"]) == (200, "pass")


@pytest.mark.parametrize("service", ["auth", "transactions"])
def test_openapi(stack: Stack, service: str) -> None:
    """Each service describes itself in OpenAPI 3.1."""
    assert stack.http.get(f"/{service}/openapi.json").json()["openapi"] == "3.1.0"


@pytest.mark.parametrize("path", ["/auth/health", "/transactions/health"])
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": "WEBSOCKET"}, 400),
        ({"method": "BREW"}, 400),
        ({"method": "QQ"}, 400),
        ({"method": "TRACE"}, 405),
        ({"params": {"x": "x" * 5_000}}, 200),
        ({"params": {"x": "x" * 8_000}}, 414),
        ({"headers": {"X-Big": "x" * 15_000}}, 200),
        ({"headers": {"X-Big": "x" * 17_000}}, 431),
        ({"headers": {f"X-{number}": "x" for number in range(150)}}, 200),
        ({"headers": {f"X-{number}": "x" for number in range(250)}}, 431),
        ({"method": "HEAD"}, 200),
        ({"method": "OPTIONS"}, 200),
    ],
    ids=str,
)
def test_every_refusal_is_the_platforms_own(
    stack: Stack, path: str, request_: dict[str, Any], status: int
) -> None:
    """No refusal of an HTTP library passes as it is, and no limit but those documented."""
    response = stack.http.request(**{"method": "GET", "url": path} | request_)
    if status == 200:
        assert response.status_code == 200, response.text
    else:
        check_problem(response, status, response.json()["code"])


@pytest.mark.parametrize("name", ["auth-api", "core-api", "psp-connector", "psp-sandbox"])
@pytest.mark.parametrize("method", ["GET", "WEBSOCKET", "POST", "TRACE"])
def test_no_port_answers_a_foreign_host(stack: Stack, name: str, method: str) -> None:
    """A web page that rebinds its name to this machine (DNS rebinding) reaches no service."""
    url = f"http://127.0.0.1:{stack.port + PORT_OFFSETS[name]}/health"
    refused = support.http.request(method, url, headers={"Host": "evil.example"})
    assert refused.status_code == (400 if method == "WEBSOCKET" else 421)
    assert support.http.request(method, url).status_code in {200, 400, 405}


TOKEN, PAY = ("POST", "/auth/token"), ("POST", "/transactions")


@pytest.mark.parametrize(
    ("route", "body", "username", "status", "code"),
    [
        (TOKEN, {"username": "becky", "password": "wrong"}, None, 401, "bad-credentials"),
        (PAY, PAYMENT, None, 401, "unauthorized"),
        (PAY, PAYMENT | {"token": "x.y.z"}, None, 401, "invalid-token"),
        (PAY, PAYMENT | {"token": "x"}, "alice", 400, "bad-request"),
        (PAY, PAYMENT, "charlie", 403, "user-disabled"),
        (PAY, {"amount": 1.5, "currency": "usd"}, "alice", 422, "invalid-request"),
        (PAY, None, "alice", 415, "unsupported-media-type"),
        (("GET", f"/transactions/{uuid.uuid4()}"), None, "alice", 404, "not-found"),
        (("DELETE", "/transactions"), None, "alice", 405, "method-not-allowed"),
    ],
)  # fmt: skip
def test_a_services_refusals_are_problems(
    stack: Stack, route: tuple[str, str], body: Any, username: str | None, status: int, code: str
) -> None:
    """A service's refusal is a problem document with the request id that the router answers."""
    headers = stack.bearer(username) if username else {}
    response = stack.http.request(*route, json=body, headers=headers)
    check_problem(response, status, code)
    assert ("www-authenticate" in response.headers) == (status == 401)


def test_an_expired_token(stack: Stack) -> None:
    """A token of 31 seconds ago is 401 (signed with the stack's own secret)."""
    secret = (stack.state / "jwt-secret").read_text().strip()
    claims = jwt.decode(stack.token(), secret, algorithms=["HS256"], audience="core-api")
    for age, status in ((0, 200), (31, 401)):
        shifted = claims | {"iat": claims["iat"] - age, "exp": claims["exp"] - age}
        token = jwt.encode(shifted, secret, algorithm="HS256")
        response = stack.http.get("/transactions", headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == status


def test_an_idempotency_key(stack: Stack) -> None:
    """A repeated key gets the first response again."""
    headers = stack.bearer() | {"Idempotency-Key": str(uuid.uuid4())}
    first = stack.http.post("/transactions", json=PAYMENT, headers=headers)
    again = stack.http.post("/transactions", json=PAYMENT, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    ("method", "status", "code"),
    [
        ("pm_card_chargeDeclined", "declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "declined", "insufficient_funds"),
        ("pm_sandbox_flaky", "captured", None),
        ("pm_sandbox_error_500", "failed", None),
        ("pm_card_none", "failed", None),
    ],
)
def test_payment_methods(stack: Stack, method: str, status: str, code: str | None) -> None:
    """Each of Stripe's test names, and of the sandbox's own, leads to its final status."""
    record = stack.ended(stack.pay(payment_method=method).json()["id"])
    assert (record["status"], record.get("decline_code")) == (status, code)


def test_nothing_listens_beyond_the_loopback(stack: Stack) -> None:
    """Every listening socket of every process is bound to 127.0.0.1."""
    found = []
    for name in PORT_OFFSETS:
        process = stack.process(name)
        for one in (process, *process.children(recursive=True)):
            found += [c.laddr for c in one.net_connections(kind="inet") if c.status == "LISTEN"]
    assert len(found) >= len(PORT_OFFSETS)
    assert {address.ip for address in found} == {"127.0.0.1"}
    assert Path(stack.environ["PC_SOCKET_PATH"]).is_socket()
