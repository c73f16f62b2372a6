"""`merchant smoke`: checks of the public contract, with payments of the shipped users.

Each check of a refusal has a control: the corrected request is accepted.
"""

import contextlib
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from devtools.merchant.client import (
    AUTH,
    TRANSACTIONS,
    Client,
    Deadline,
    Response,
    Token,
    read,
)
from devtools.merchant.commands import follow
from devtools.merchant.errors import PlatformError, UnreachableError
from devtools.merchant.report import Screen, duration
from services.common.settings import SettingsError
from services.common.tokens import Tokens, TokenSettings
from services.common.transaction import FINAL, Transaction
from services.core_api.models import Loyalty

# Enough for a retried attempt; a payment at the sandbox takes about 20 ms.
_PAYMENT_SECONDS_MAX = 10.0
# A token is valid for 30 s, plus one because its times are whole seconds.
_EXPIRY_SECONDS_MAX = 31.0
_CREDITS_MAX = 100
_NAME_WIDTH = 64
_ONE_USD = {"amount": 100, "currency": "USD"}


class CheckFailedError(Exception):
    """A check failed; the message has the expected and the actual result."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"expected {expected}, got {actual}")


@dataclass(frozen=True)
class Merchants:
    """Shared by the checks: client, logins and output."""

    client: Client
    password: str
    environ: Mapping[str, str]
    screen: Screen

    def login(self, username: str) -> Token:
        """A new token for the merchant."""
        return read(Token, _with_status(self.client.token(username, self.password), 200))

    def token(self, username: str) -> str:
        """The text of a new token."""
        return self.login(username).token

    def list_with(self, token: str) -> Response:
        """The response to a listing, which needs only a token."""
        return self.client.send("GET", f"{TRANSACTIONS}?limit=1", token=token)

    def post(self, username: str, amount: int, currency: str, **more: str) -> Response:
        """Creates a transaction."""
        body = {"amount": amount, "currency": currency, **more}
        return self.client.post_transaction(self.token(username), body)

    def finish(self, username: str, accepted: Response) -> Transaction:
        """The final state of an accepted transaction."""
        transaction = read(Transaction, _with_status(accepted, 202))
        path = f"{TRANSACTIONS}/{transaction.id}"
        _equal("Location", path, accepted.headers.get("Location", ""))
        token = self.token(username)
        seconds = min(_PAYMENT_SECONDS_MAX, self.client.deadline.seconds_left())
        for _response, current in follow(
            lambda: self.client.send("GET", path, token=token), Deadline(seconds)
        ):
            transaction = current
        if transaction.status not in FINAL:
            raise CheckFailedError(f"an end within {seconds:.0f} s", transaction.status)
        return transaction

    def loyalty(self, username: str) -> Loyalty:
        """The merchant's points and newest credits."""
        path = f"{TRANSACTIONS}/loyalty?limit={_CREDITS_MAX}"
        response = self.client.send("GET", path, token=self.token(username))
        return read(Loyalty, _with_status(response, 200))

    def check_credits(
        self, before: Loyalty, username: str, transaction_id: str, expected: list[int]
    ) -> None:
        """Checks what was credited for the transaction, and the balance against the ledger.

        Includes credits for concurrent payments of the same user.
        """
        now = self.loyalty(username)
        last = before.ledger[0].transaction_id if before.ledger else ""
        new = list(takewhile(lambda credit: credit.transaction_id != last, now.ledger))
        total = before.points + sum(credit.points for credit in new)
        _equal("points after", str(total), str(now.points))
        credited = [credit.points for credit in new if credit.transaction_id == transaction_id]
        _equal("credits of this transaction", str(expected), str(credited))


Check = Callable[[Merchants], None]
CHECKS: dict[str, Check] = {}


def _check(name: str) -> Callable[[Check], Check]:
    """Adds the decorated check to CHECKS."""
    return partial(CHECKS.setdefault, name)


def _equal(what: str, expected: str, actual: str) -> None:
    if actual != expected:
        raise CheckFailedError(f"{what} {expected}", actual or "none")


def _with_status(response: Response, status: int) -> Response:
    """Checks the status, and that the response has the request's id."""
    if response.status != status:
        raise CheckFailedError(f"{status}", f"{response.status} {response.code}".rstrip())
    _equal("X-Request-Id", response.request_id, response.headers.get("X-Request-Id", ""))
    return response


def _refused(response: Response, status: int) -> None:
    """Checks for a problem document (RFC 9457); a 401 needs WWW-Authenticate (RFC 9110)."""
    _with_status(response, status)
    content_type = response.headers.get("Content-Type", "").partition(";")[0]
    _equal("Content-Type", "application/problem+json", content_type)
    body = response.document
    _equal("status in the document", str(status), str(body.get("status", "")))
    _equal("request_id in the document", response.request_id, str(body.get("request_id", "")))
    if not response.code or not body.get("detail"):
        raise CheckFailedError("a document with code and detail", ", ".join(body) or "none")
    if status == 401 and not response.headers.get("WWW-Authenticate"):
        raise CheckFailedError("the header WWW-Authenticate", "none")


def _health(name: str, path: str) -> None:
    @_check(f"health: {name}")
    def check(merchants: Merchants) -> None:
        response = _with_status(merchants.client.send("GET", path), 200)
        _equal("status", "pass", str(response.document.get("status", "")))


def _captured(amount: int, currency: str, points: int) -> None:
    unit = "point" if points == 1 else "points"

    @_check(f"captured: alice pays {currency} {amount}, gets {points} {unit}")
    def check(merchants: Merchants) -> None:
        before = merchants.loyalty("alice")
        transaction = merchants.finish("alice", merchants.post("alice", amount, currency))
        _equal("status", "captured", transaction.status)
        _equal("loyalty_points", str(points), str(transaction.loyalty_points))
        merchants.check_credits(before, "alice", transaction.id, [points])


_health("the router", "/health")
_health("the Auth API", f"{AUTH}/health")
_health("the Core API", f"{TRANSACTIONS}/health")
_captured(1250, "USD", 12)
_captured(500, "JPY", 500)
_captured(1250, "BHD", 1)


@_check("declined: becky's pm_card_chargeDeclined, with its decline code")
def _declined(merchants: Merchants) -> None:
    before = merchants.loyalty("becky")
    accepted = merchants.post("becky", 1250, "USD", payment_method="pm_card_chargeDeclined")
    transaction = merchants.finish("becky", accepted)
    _equal("status", "declined", transaction.status)
    _equal("decline_code", "generic_decline", transaction.decline_code or "")
    merchants.check_credits(before, "becky", transaction.id, [])


@_check("403: charlie has a token, but no transaction")
def _disabled(merchants: Merchants) -> None:
    _refused(merchants.post("charlie", 1250, "USD"), 403)


@_check("404: becky asks for alice's transaction")
def _foreign(merchants: Merchants) -> None:
    transaction = merchants.finish("alice", merchants.post("alice", 100, "USD"))
    _with_status(merchants.client.get(merchants.token("alice"), transaction.id), 200)
    _refused(merchants.client.get(merchants.token("becky"), transaction.id), 404)


@_check("422: an unknown currency")
def _unknown_currency(merchants: Merchants) -> None:
    response = merchants.post("alice", 1250, "ZZZ")
    _refused(response, 422)
    errors = response.document.get("errors")
    faults = errors if isinstance(errors, list) else []
    pointers = [str(fault.get("pointer")) for fault in faults if isinstance(fault, dict)]
    _equal("errors for", "/currency", ", ".join(pointers))


@_check("idempotency: a repeat gets the first response")
def _repeated(merchants: Merchants) -> None:
    token, key = merchants.token("alice"), f"smoke-{uuid.uuid4()}"
    first = merchants.client.post_transaction(token, _ONE_USD, key)
    _equal("Idempotency-Replayed at first", "", first.headers.get("Idempotency-Replayed", ""))
    transaction = merchants.finish("alice", first)
    second = _with_status(merchants.client.post_transaction(token, _ONE_USD, key), 202)
    _equal("the same id", transaction.id, read(Transaction, second).id)
    _equal("Idempotency-Replayed", "true", second.headers.get("Idempotency-Replayed", ""))


@_check(f"older path: POST {TRANSACTIONS}/transaction")
def _older_path(merchants: Merchants) -> None:
    path = f"{TRANSACTIONS}/transaction"
    response = merchants.client.send("POST", path, token=merchants.token("alice"), body=_ONE_USD)
    _equal("status", "captured", merchants.finish("alice", response).status)


@_check("token in the body, amount as text")
def _token_in_body(merchants: Merchants) -> None:
    # Text as amount, as HTTPie's `amount=100` sends it.
    body = {"amount": "100", "currency": "USD", "token": merchants.token("alice")}
    response = merchants.client.post_transaction("", body)
    _equal("status", "captured", merchants.finish("alice", response).status)


@_check("401: a token with another signature")
def _tampered(merchants: Merchants) -> None:
    token = merchants.token("alice")
    _with_status(merchants.list_with(token), 200)
    signed, _, signature = token.rpartition(".")
    # Not the last character: some of its bits are unused.
    other = "A" if signature[:1] != "A" else "B"
    _refused(merchants.list_with(f"{signed}.{other}{signature[1:]}"), 401)


@_check("401: a token that has expired")
def _expired(merchants: Merchants) -> None:
    login = merchants.login("alice")
    with contextlib.suppress(SettingsError):
        settings = TokenSettings.read({**merchants.environ, "HTTP_PORT": "1"})
        issued = Tokens(settings).issue(1, "alice", enabled=True)
        if merchants.list_with(issued).status == 200:
            earlier = Tokens(settings, lambda: time.time() - _EXPIRY_SECONDS_MAX)
            _refused(merchants.list_with(earlier.issue(1, "alice", enabled=True)), 401)
            return
    _with_status(merchants.list_with(login.token), 200)
    seconds = min(login.expires_in + 1, _EXPIRY_SECONDS_MAX)
    left = merchants.client.deadline.seconds_left()
    if seconds >= left:
        raise CheckFailedError(f"{seconds:.0f} s to wait for its end", f"{left:.0f} s left")
    why = "JWT_SECRET or JWT_SECRET_FILE is not the platform's"
    merchants.screen.say(f"        waiting {seconds:.0f} s for a token to expire: {why}")
    time.sleep(seconds)
    _refused(merchants.list_with(login.token), 401)


def run(url: str, password: str, environ: Mapping[str, str], *, seconds_max: float) -> int:
    """Runs all checks, printing a line each; returns 0 if all pass, else 1.

    Raises:
        UnreachableError: the router does not respond; the remaining checks are not tried.
    """
    screen = Screen(sys.stdout, environ)
    with Client(url, Deadline(seconds_max)) as client:
        merchants = Merchants(client, password, environ, screen)
        passed = sum([_passes(check, name, merchants) for name, check in CHECKS.items()])
    screen.say(f"smoke: {passed} passed, {len(CHECKS) - passed} failed")
    return 0 if passed == len(CHECKS) else 1


def _passes(check: Check, name: str, merchants: Merchants) -> bool:
    started, fault = time.perf_counter(), ""
    try:
        check(merchants)
    except UnreachableError:
        merchants.screen.say(f"NOT ok  {name}", "NOT ok")
        raise
    except (CheckFailedError, PlatformError) as error:
        fault = str(error)
    ms = (time.perf_counter() - started) * 1000
    status = "NOT ok" if fault else "ok"
    merchants.screen.say(f"{status:<7} {name:<{_NAME_WIDTH}} {duration(ms):>8}", status)
    if fault:
        merchants.screen.say(f"        {fault}")
    return not fault
