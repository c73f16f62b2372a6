"""Sends payments through the router as the shipped users, and checks the responses.

Each check has a control where "refused" alone would not tell why: the same request with the one
thing put right is accepted.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, TextIO

import jwt
from pydantic import Field

from devtools.merchant.answers import Loyalty, Token, Transaction, read
from devtools.merchant.client import Client, Deadline
from devtools.merchant.errors import PlatformError, UnreachableError
from devtools.merchant.payment import follow
from devtools.merchant.report import Screen, duration
from services.common.settings import Secret, Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devtools.merchant.client import Answer

# Long enough for an attempt that is retried; a payment at the sandbox takes some 20 ms.
_PAYMENT_SECONDS_MAX = 10.0
# A token is good for 30 s; one more, because its times are whole seconds.
_EXPIRY_SECONDS_MAX = 31.0
_CREDITS_MAX = 100
_NAME_WIDTH = 64


class CheckFailedError(Exception):
    """Expected and actual result; with a hint, the remaining checks are pointless."""

    def __init__(self, expected: str, got: str, hint: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got
        self.hint = hint


class SigningSettings(Settings):
    """The secret that signs tokens, where this process may read it."""

    jwt_secret: Secret | None = Field(default=None, description="what tokens are signed with")


@dataclass(frozen=True)
class Smoke:
    """What the checks share."""

    client: Client
    password: str
    environ: Mapping[str, str]
    screen: Screen

    def login(self, username: str) -> Token:
        """A new token for the merchant."""
        answer = self.client.token(username, self.password)
        _status(answer, 200)
        return read(Token, answer)

    def token(self, username: str) -> str:
        """Its text."""
        return self.login(username).token

    def post(self, username: str, amount: int, currency: str, **more: str) -> Answer:
        """Creates a transaction."""
        wanted = {"amount": amount, "currency": currency, **more}
        return self.client.post_transaction(self.token(username), wanted)

    def finish(self, username: str, accepted: Answer) -> Transaction:
        """The final state of an accepted transaction."""
        _status(accepted, 202)
        transaction = read(Transaction, accepted)
        _equal("Location", f"/transactions/{transaction.id}", accepted.headers.get("Location", ""))
        token = self.token(username)
        seconds = min(_PAYMENT_SECONDS_MAX, self.client.deadline.seconds_left())
        transaction_id = transaction.id
        for _answer, current in follow(
            lambda: self.client.get(token, transaction_id), Deadline(seconds)
        ):
            transaction = current
        if not transaction.is_final:
            raise CheckFailedError(f"an end within {seconds:.0f} s", transaction.status)
        return transaction

    def loyalty(self, username: str) -> Loyalty:
        """The merchant's points and newest credits."""
        answer = self.client.loyalty(self.token(username), _CREDITS_MAX)
        _status(answer, 200)
        return read(Loyalty, answer)

    def credits_since(self, before: Loyalty, username: str, transaction_id: str) -> list[int]:
        """What was credited for the transaction since; the balance has to agree with the ledger.

        Others may pay as the same user meanwhile: what they were credited is counted as well.
        """
        now = self.loyalty(username)
        last = before.ledger[0].transaction_id if before.ledger else ""
        new = list(takewhile(lambda credit: credit.transaction_id != last, now.ledger))
        total = before.points + sum(credit.points for credit in new)
        _equal("points after", str(total), str(now.points))
        return [credit.points for credit in new if credit.transaction_id == transaction_id]


def run(
    url: str, password: str, environ: Mapping[str, str], stdout: TextIO, *, seconds_max: float
) -> int:
    """Runs all checks, printing a line each; returns 0 if all pass, else 1."""
    screen = Screen(stdout)
    passed, stop = 0, ""
    with Client(url, Deadline(seconds_max)) as client:
        smoke = Smoke(client, password, environ, screen)
        for name, check in CHECKS:
            if not stop and not client.deadline.seconds_left():
                stop = f"not tried: the {seconds_max:g} s for all checks are over"
            if stop:
                _tell(screen, "NOT ok", name, stop)
                continue
            failure = _do(check, name, smoke)
            passed += failure is None
            if failure and failure.hint:
                stop = "not tried"
    screen.say(f"smoke: {passed} passed, {len(CHECKS) - passed} failed")
    return 0 if passed == len(CHECKS) else 1


def _do(check: Callable[[Smoke], None], name: str, smoke: Smoke) -> CheckFailedError | None:
    started = time.perf_counter()
    failure = _failure(check, smoke)
    time_taken = f"{duration((time.perf_counter() - started) * 1000):>8}"
    _tell(smoke.screen, "NOT ok" if failure else "ok", name, time_taken)
    if failure:
        smoke.screen.say(f"          expected: {failure.expected}")
        smoke.screen.say(f"          got:      {failure.got}")
        for line in failure.hint.splitlines():
            smoke.screen.say(f"          {line}")
    return failure


def _failure(check: Callable[[Smoke], None], smoke: Smoke) -> CheckFailedError | None:
    try:
        check(smoke)
    except CheckFailedError as failure:
        return failure
    except PlatformError as error:
        nobody_there = check is _router_health and isinstance(error, UnreachableError)
        code = f" ({error.code})" if error.code else ""
        got = error.detail + code
        return CheckFailedError("an answer", got, error.hint if nobody_there else "")
    return None


def _tell(screen: Screen, word: str, name: str, outcome: str) -> None:
    screen.say(f"{word:<7} {name:<{_NAME_WIDTH}} {outcome}")


def _equal(what: str, expected: str, got: str) -> None:
    if expected != got:
        raise CheckFailedError(f"{what} {expected}", got or "none")


def _status(answer: Answer, status: int) -> None:
    """Checks the status, and that the response has the request's id."""
    if answer.status != status:
        raise CheckFailedError(f"{status}", f"{answer.status} {answer.code}".rstrip())
    _equal("X-Request-Id", answer.request_id, answer.headers.get("X-Request-Id", ""))


def _refused(answer: Answer, status: int) -> None:
    """Checks for a problem document (RFC 9457); a 401 needs WWW-Authenticate (RFC 9110)."""
    _status(answer, status)
    content_type = answer.headers.get("Content-Type", "").partition(";")[0]
    _equal("Content-Type", "application/problem+json", content_type)
    body = answer.body if isinstance(answer.body, dict) else {}
    _equal("status in the document", str(status), str(body.get("status", "")))
    _equal("request_id in the document", answer.request_id, str(body.get("request_id", "")))
    if not answer.code or not body.get("detail"):
        raise CheckFailedError("a document with code and detail", ", ".join(body) or "none")
    if status == 401 and not answer.headers.get("WWW-Authenticate"):
        raise CheckFailedError("the header WWW-Authenticate", "none")


def _health(smoke: Smoke, path: str) -> None:
    answer = smoke.client.send("GET", path)
    _status(answer, 200)
    body = answer.body if isinstance(answer.body, dict) else {}
    _equal("status", "pass", str(body.get("status", "")))


def _router_health(smoke: Smoke) -> None:
    _health(smoke, "/health")


def _auth_health(smoke: Smoke) -> None:
    _health(smoke, "/auth/health")


def _core_health(smoke: Smoke) -> None:
    _health(smoke, "/transactions/health")


def _captured(smoke: Smoke, amount: int, currency: str, points: int) -> None:
    before = smoke.loyalty("alice")
    transaction = smoke.finish("alice", smoke.post("alice", amount, currency))
    _equal("status", "captured", transaction.status)
    _equal("loyalty_points", str(points), str(transaction.loyalty_points))
    credited = smoke.credits_since(before, "alice", transaction.id)
    _equal("credits of this transaction", str([points]), str(credited))


def _captured_usd(smoke: Smoke) -> None:
    _captured(smoke, 1250, "USD", 12)


def _captured_jpy(smoke: Smoke) -> None:
    _captured(smoke, 500, "JPY", 500)


def _captured_bhd(smoke: Smoke) -> None:
    _captured(smoke, 1250, "BHD", 1)


def _declined(smoke: Smoke) -> None:
    before = smoke.loyalty("becky")
    accepted = smoke.post("becky", 1250, "USD", payment_method="pm_card_chargeDeclined")
    transaction = smoke.finish("becky", accepted)
    _equal("status", "declined", transaction.status)
    _equal("decline_code", "generic_decline", transaction.decline_code or "")
    credited = smoke.credits_since(before, "becky", transaction.id)
    _equal("credits of this transaction", "[]", str(credited))


def _disabled(smoke: Smoke) -> None:
    _refused(smoke.post("charlie", 1250, "USD"), 403)


def _foreign(smoke: Smoke) -> None:
    transaction = smoke.finish("alice", smoke.post("alice", 100, "USD"))
    _status(smoke.client.get(smoke.token("alice"), transaction.id), 200)
    _refused(smoke.client.get(smoke.token("becky"), transaction.id), 404)


def _repeated(smoke: Smoke) -> None:
    token, key = smoke.token("alice"), f"smoke-{uuid.uuid4()}"
    wanted = {"amount": 100, "currency": "USD"}
    first = smoke.client.post_transaction(token, wanted, key)
    _equal("Idempotency-Replayed at first", "", first.headers.get("Idempotency-Replayed", ""))
    transaction = smoke.finish("alice", first)
    second = smoke.client.post_transaction(token, wanted, key)
    _status(second, 202)
    _equal("the same id", transaction.id, read(Transaction, second).id)
    replayed = second.headers.get("Idempotency-Replayed", "")
    _equal("Idempotency-Replayed", "true", replayed)


def _wrong_currency(smoke: Smoke) -> None:
    answer = smoke.post("alice", 1250, "ZZZ")
    _refused(answer, 422)
    errors = answer.body.get("errors")
    faults = errors if isinstance(errors, list) else []
    pointers = [str(fault.get("pointer")) for fault in faults if isinstance(fault, dict)]
    _equal("errors for", "/currency", ", ".join(pointers))


def _older_path(smoke: Smoke) -> None:
    wanted = {"amount": 100, "currency": "USD"}
    path = "/transactions/transaction"
    answer = smoke.client.post_transaction(smoke.token("alice"), wanted, path=path)
    _equal("status", "captured", smoke.finish("alice", answer).status)


def _token_in_body(smoke: Smoke) -> None:
    # Text as amount, as HTTPie's `amount=100` sends it.
    wanted = {"amount": "100", "currency": "USD", "token": smoke.token("alice")}
    answer = smoke.client.post_transaction("", wanted)
    _equal("status", "captured", smoke.finish("alice", answer).status)


def _tampered(smoke: Smoke) -> None:
    token = smoke.token("alice")
    _status(smoke.client.list(token, 1), 200)
    signed, _, signature = token.rpartition(".")
    # Not the last character: some of its bits belong to no byte.
    other = "A" if signature[:1] != "A" else "B"
    _refused(smoke.client.list(f"{signed}.{other}{signature[1:]}", 1), 401)


def _expired(smoke: Smoke) -> None:
    login = smoke.login("alice")
    try:
        secret = SigningSettings.read(smoke.environ).jwt_secret
        reason = "neither JWT_SECRET nor JWT_SECRET_FILE is set"
    except SettingsError as error:
        secret, reason = None, "; ".join(error.faults)
    if secret is None:
        _wait_for_expiry(smoke, login, reason)
    else:
        again, expired = _signed_again(login.token, secret.get_secret_value())
        _status(smoke.client.list(again, 1), 200)
        _refused(smoke.client.list(expired, 1), 401)


def _signed_again(token: str, secret: str) -> tuple[str, str]:
    """The token signed here, as it is, and as if it had been given 31 s earlier."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        earlier = {name: int(claims[name] - _EXPIRY_SECONDS_MAX) for name in ("iat", "exp")}
        again = jwt.encode(claims, secret, algorithm="HS256")
        return again, jwt.encode({**claims, **earlier}, secret, algorithm="HS256")
    except (jwt.PyJWTError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise CheckFailedError("a JWT with iat and exp", type(error).__name__) from None


def _wait_for_expiry(smoke: Smoke, login: Token, reason: str) -> None:
    _status(smoke.client.list(login.token, 1), 200)
    seconds = min(login.expires_in + 1, _EXPIRY_SECONDS_MAX)
    left = smoke.client.deadline.seconds_left()
    if seconds >= left:
        raise CheckFailedError(f"{seconds:.0f} s to wait for its end", f"{left:.0f} s left")
    smoke.screen.say(f"        waiting {seconds:.0f} s for a token to expire: {reason}")
    time.sleep(max(0.0, seconds))
    _refused(smoke.client.list(login.token, 1), 401)


CHECKS: list[tuple[str, Callable[[Smoke], None]]] = [
    ("health: the router", _router_health),
    ("health: the Auth API", _auth_health),
    ("health: the Core API", _core_health),
    ("captured: alice pays USD 1250, gets 12 points", _captured_usd),
    ("captured: alice pays JPY 500, gets 500 points", _captured_jpy),
    ("captured: alice pays BHD 1250, gets 1 point", _captured_bhd),
    ("declined: becky's pm_card_chargeDeclined, with its decline code", _declined),
    ("403: charlie has a token, but no transaction", _disabled),
    ("404: becky asks for alice's transaction", _foreign),
    ("422: a currency that is none", _wrong_currency),
    ("idempotency: the repeat is the first one's answer", _repeated),
    ("older path: POST /transactions/transaction", _older_path),
    ("token in the body, amount as text", _token_in_body),
    ("401: a token with another signature", _tampered),
    ("401: a token that has expired", _expired),
]
