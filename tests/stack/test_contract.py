"""Every row of the public contract, and every error in it, through the router."""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest

from devtools.address import PORT_OFFSETS
from tests import support
from tests.stack.stack import request_id

if TYPE_CHECKING:
    from tests.stack.stack import Stack


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem document of that status and code."""
    document: dict[str, Any] = answer.json()
    assert (status, code) == (answer.status_code, document["code"]), answer.text
    assert status == document["status"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert "127.0.0.1" not in answer.text
    return document


def test_a_token_for_name_and_password(stack: Stack) -> None:
    """POST /auth/token: 200 with token, type and lifetime."""
    body = {"username": "alice", "password": "password"}
    answer = stack.http.post("/auth/token", json=body)
    assert answer.status_code == 200
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 30)
    assert set(answer.json()) == {"token", "token_type", "expires_in"}


@pytest.mark.parametrize("path", ["/transactions", "/transactions/", "/transactions/transaction"])
def test_a_payment_end_to_end(stack: Stack, path: str) -> None:
    """POST /transactions (and the older path): 202 at once, captured soon, 12 points more."""
    before = stack.points()
    body = {"amount": 1250, "currency": "USD"}
    answer = stack.http.post(path, json=body, headers=stack.bearer())
    assert answer.status_code == 202
    assert f"/transactions/{answer.json()['id']}" == answer.headers["location"]
    record = stack.ended(answer.json()["id"])
    assert (record["status"], record["loyalty_points"], record["attempts"]) == ("captured", 12, 1)
    assert record["psp_reference"].startswith("pi_")
    assert [e["event"] for e in record["timeline"]] == ["queued", "processing", "captured"]
    assert before + 12 == stack.points()


def test_the_location_leads_to_the_transaction(stack: Stack) -> None:
    """What Location names can be fetched as it stands."""
    answer = stack.pay()
    found = stack.http.get(answer.headers["location"], headers=stack.bearer())
    assert (200, answer.json()["id"]) == (found.status_code, found.json()["id"])


def test_the_token_in_the_body_and_the_amount_as_text(stack: Stack) -> None:
    """As HTTPie's `amount=100 currency=USD token=…` sends it."""
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
    assert [ids[2], ids[1]] == [t["id"] for t in first["transactions"]]
    more = {"limit": 2, "cursor": first["next_cursor"]}
    second = stack.http.get("/transactions", params=more, headers=headers).json()
    assert ids[0] == second["transactions"][0]["id"]
    assert {t["user_id"] for t in first["transactions"] + second["transactions"]} == {2}


def test_another_users_transaction_is_not_found(stack: Stack) -> None:
    """GET /transactions/{id}: 404 for what is not the caller's."""
    mine = stack.pay().json()["id"]
    answer = stack.http.get(f"/transactions/{mine}", headers=stack.bearer("becky"))
    problem(answer, 404, "not-found")
    unknown = stack.http.get(f"/transactions/{uuid.uuid4()}", headers=stack.bearer())
    problem(unknown, 404, "not-found")


def test_loyalty_says_how_points_came_about(stack: Stack) -> None:
    """GET /transactions/loyalty: the newest credit is the last payment's."""
    paid = stack.ended(stack.pay(amount=500, currency="JPY").json()["id"])
    loyalty = stack.http.get("/transactions/loyalty", headers=stack.bearer()).json()
    newest = loyalty["ledger"][0]
    assert (paid["id"], 500) == (newest["transaction_id"], newest["points"])


@pytest.mark.parametrize("path", ["/health", "/auth/health", "/transactions/health"])
@pytest.mark.parametrize("host", [None, "platform.localhost", "localhost"])
def test_health(stack: Stack, path: str, host: str | None) -> None:
    """The router's own and each service's, under any name of this machine."""
    headers = {"Host": f"{host}:{stack.port}"} if host else {}
    answer = stack.http.get(path, headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (200, "pass")


@pytest.mark.parametrize("service", ["auth", "transactions"])
def test_openapi(stack: Stack, service: str) -> None:
    """Each service describes itself in OpenAPI 3.1."""
    document = stack.http.get(f"/{service}/openapi.json").json()
    assert document["openapi"] == "3.1.0"


@pytest.mark.parametrize("path", ["/", "/authx", "/metrics", "/auth/metrics", "/transactionsx"])
def test_anything_else_is_not_found(stack: Stack, path: str) -> None:
    """404 as a problem document."""
    problem(stack.http.get(path), 404, "not-found")


@pytest.mark.parametrize("path", ["/auth/health", "/transactions/health"])
@pytest.mark.parametrize(
    ("asked", "status"),
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
        ({"headers": {"Host": "evil.example"}}, 421),
        ({"method": "HEAD"}, 200),
        ({"method": "OPTIONS"}, 200),
    ],
    ids=str,
)
def test_whatever_is_asked_the_answer_is_of_the_platform(
    stack: Stack, path: str, asked: dict[str, Any], status: int
) -> None:
    """No refusal of an HTTP library comes through as it is, and no limit but those documented."""
    answer = stack.http.request(**{"method": "GET", "url": path} | asked)
    if status == 200:
        assert answer.status_code == 200, answer.text
    else:
        problem(answer, status, answer.json()["code"])


@pytest.mark.parametrize("name", ["auth-api", "core-api", "psp-connector", "psp-sandbox"])
@pytest.mark.parametrize("method", ["GET", "WEBSOCKET", "POST", "TRACE"])
def test_no_port_answers_a_foreign_host(stack: Stack, name: str, method: str) -> None:
    """A web page whose name was made to lead here reaches no service, nor makes it fail."""
    url = f"http://127.0.0.1:{stack.port + PORT_OFFSETS[name]}/health"
    refused = httpx.request(method, url, headers={"Host": "evil.example"})
    assert (400 if method == "WEBSOCKET" else 421) == refused.status_code
    assert httpx.request(method, url).status_code in {200, 400, 405}


@pytest.mark.parametrize("path", ["/auth/token", "/transactions"])
def test_malformed_json(stack: Stack, path: str) -> None:
    """400, with a good token where one is needed."""
    headers = stack.bearer() | {"Content-Type": "application/json"}
    problem(stack.http.post(path, content="{", headers=headers), 400, "malformed-json")


def test_a_token_twice(stack: Stack) -> None:
    """400: a token in the header and in the body."""
    problem(stack.pay(token="x"), 400, "bad-request")


def test_no_token(stack: Stack) -> None:
    """401 with a challenge."""
    answer = stack.http.post("/transactions", json={"amount": 1, "currency": "USD"})
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer ")


def test_a_bad_token(stack: Stack) -> None:
    """401 with a challenge that says so."""
    headers = {"Authorization": "Bearer x.y.z"}
    answer = stack.http.get("/transactions", headers=headers)
    problem(answer, 401, "invalid-token")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_an_expired_token(stack: Stack) -> None:
    """401 when the 30 seconds are over (signed 31 seconds back with the stack's own secret)."""
    secret = (stack.state / "jwt-secret").read_text().strip()
    claims = jwt.decode(stack.token(), secret, algorithms=["HS256"], audience="core-api")
    for shift, status in ((0, 200), (31, 401)):
        shifted = claims | {"iat": claims["iat"] - shift, "exp": claims["exp"] - shift}
        token = jwt.encode(shifted, secret, algorithm="HS256")
        answer = stack.http.get("/transactions", headers={"Authorization": f"Bearer {token}"})
        assert status == answer.status_code


def test_a_disabled_user(stack: Stack) -> None:
    """403: charlie has a token and no transaction."""
    problem(stack.pay("charlie"), 403, "user-disabled")


def test_a_wrong_password(stack: Stack) -> None:
    """401 from the Auth API too."""
    body = {"username": "becky", "password": "wrong"}
    answer = stack.http.post("/auth/token", json=body)
    problem(answer, 401, "bad-credentials")
    assert "www-authenticate" in answer.headers


def test_too_many_wrong_passwords(stack: Stack) -> None:
    """429 with Retry-After for a name that is being guessed at."""
    body = {"username": f"guessed-{uuid.uuid4()}", "password": "wrong"}
    for _ in range(20):
        answer = stack.http.post("/auth/token", json=body)
        if answer.status_code == 429:
            break
    problem(answer, 429, "too-many-requests")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/auth/token", "/transactions/health"])
def test_a_wrong_method(stack: Stack, path: str) -> None:
    """405 with Allow."""
    answer = stack.http.delete(path)
    problem(answer, 405, "method-not-allowed")
    assert "allow" in answer.headers


@pytest.mark.parametrize("path", ["/auth/token", "/transactions"])
def test_a_body_too_large(stack: Stack, path: str) -> None:
    """413 over 16 KiB; and 411 for a body that does not say its length."""
    body = b'"' + b"x" * 20_000 + b'"'
    headers = stack.bearer() | {"Content-Type": "application/json"}
    problem(stack.http.post(path, content=body, headers=headers), 413, "payload-too-large")
    chunked = stack.http.post(path, content=iter([body]), headers=headers)
    problem(chunked, 411, "length-required")


@pytest.mark.parametrize("path", ["/auth/token", "/transactions"])
def test_a_body_that_is_not_json(stack: Stack, path: str) -> None:
    """415 for a form."""
    answer = stack.http.post(path, data={"amount": "1"}, headers=stack.bearer())
    problem(answer, 415, "unsupported-media-type")


def test_wrong_fields(stack: Stack) -> None:
    """422 with one entry for each."""
    answer = stack.pay(amount=1.5, currency="usd")
    document = problem(answer, 422, "invalid-request")
    assert [error["pointer"] for error in document["errors"]] == ["/amount", "/currency"]


def test_an_idempotency_key(stack: Stack) -> None:
    """The first answer again, and 422 for another request under the same key."""
    headers = stack.bearer() | {"Idempotency-Key": str(uuid.uuid4())}
    body = {"amount": 100, "currency": "USD"}
    first = stack.http.post("/transactions", json=body, headers=headers)
    again = stack.http.post("/transactions", json=body, headers=headers)
    assert (202, first.json()) == (again.status_code, again.json())
    assert again.headers["idempotency-replayed"] == "true"
    other = stack.http.post("/transactions", json=body | {"amount": 1}, headers=headers)
    problem(other, 422, "idempotency-key-reused")


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
def test_payment_methods_end_as_they_say(
    stack: Stack, method: str, status: str, code: str | None
) -> None:
    """Each of Stripe's test names, and the sandbox's own, has its end."""
    record = stack.ended(stack.pay(payment_method=method).json()["id"])
    assert (status, code) == (record["status"], record.get("decline_code"))


def test_a_request_id_goes_all_the_way(stack: Stack) -> None:
    """A client's id is answered, and logged by each process that touched the transaction."""
    given = request_id()
    headers = stack.bearer() | {"X-Request-Id": given}
    answer = stack.http.post(
        "/transactions", json={"amount": 100, "currency": "USD"}, headers=headers
    )
    assert given == answer.headers["x-request-id"]
    stack.ended(answer.json()["id"])
    for name in ("router", "core-api", "psp-connector", "psp-sandbox"):
        # The router writes its line when the answer has gone.
        support.wait_until(lambda: given in stack.log(name), what=f"the line of {name}")  # noqa: B023


def test_a_bad_request_id_is_replaced(stack: Stack) -> None:
    """What is no request id is not carried on."""
    answer = stack.http.get("/transactions/health", headers={"X-Request-Id": "a b"})
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"])


def test_no_version_is_given_away(stack: Stack) -> None:
    """No Server and no Via."""
    for path in ("/health", "/auth/health", "/nothing"):
        assert {"server", "via"} & set(stack.http.get(path).headers) == set()


def test_no_secret_is_in_logs_or_process_titles(stack: Stack) -> None:
    """Neither the JWT secret nor a password, a token or the PSP's key."""
    token = stack.token()
    stack.http.post("/auth/token", json={"username": "becky", "password": "hunter2-of-test"})
    stack.http.get("/transactions", headers={"Authorization": f"Bearer {token}"})
    stack.ended(stack.pay().json()["id"])
    secrets = [(stack.state / "jwt-secret").read_text().strip(), token, "hunter2-of-test"]
    texts = [path.read_text() for path in (stack.state / "logs").iterdir()]
    texts += [" ".join(process.cmdline()) for process in stack.process("auth-api").children()]
    for secret in [*secrets, "sk_test_sandbox"]:
        assert not any(secret in text for text in texts)


def test_secrets_are_the_users_own(stack: Stack) -> None:
    """The state folder is of mode 700, the secret of 600."""
    assert stack.state.stat().st_mode & 0o777 == 0o700
    assert (stack.state / "jwt-secret").stat().st_mode & 0o777 == 0o600


def test_nothing_listens_beyond_the_loopback(stack: Stack) -> None:
    """Every listening socket of every process is bound to 127.0.0.1."""
    found = []
    for name in ("router", "auth-api", "core-api", "psp-connector", "psp-sandbox", "redis"):
        process = stack.process(name)
        for one in (process, *process.children(recursive=True)):
            found += [c.laddr for c in one.net_connections(kind="inet") if c.status == "LISTEN"]
    assert len(found) >= 6
    assert {address.ip for address in found} == {"127.0.0.1"}
    assert Path(stack.environ["PC_SOCKET_PATH"]).is_socket()
