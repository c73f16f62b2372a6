"""The commands, after their arguments are parsed."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from devtools.merchant.client import Client, Deadline, Response, Session, expect, read
from devtools.merchant.errors import PlatformError, UnreachableError
from devtools.merchant.report import Screen, duration
from services.common.transaction import FINAL, Transaction

# Ends the responses of router and Core API to a payment that may have been accepted.
_SEND_AGAIN = ": send it again with the same Idempotency-Key."
_EXIT_OPEN = 3
_EXITS = {"captured": 0, "declined": 1, "failed": 1}
# A payment at the sandbox takes about 20 ms, a retried one seconds.
_POLL_SECONDS_MIN = 0.01
_POLL_SECONDS_MAX = 0.5


def run(args: argparse.Namespace, url: str, password: str, environ: Mapping[str, str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        PlatformError: the platform cannot be reached, or refuses.
    """
    with Client(url, Deadline(args.timeout)) as client:
        command = Command(args, client, password, environ)
        action: Callable[[Command], int] = getattr(Command, args.command)
        return action(command)


class Command:
    """A command's arguments, client and output; a method for each command."""

    def __init__(
        self, args: argparse.Namespace, client: Client, password: str, environ: Mapping[str, str]
    ) -> None:
        self._args = args
        self._client = client
        self._session = Session(client, args.username, password, self._on_login)
        self._environ = environ
        self._screen = Screen(sys.stdout, environ)

    def _on_login(self, response: Response) -> None:
        if self._args.command == "pay":
            self._hop("token", response.ms, response, f"for {self._args.username}")

    def _hop(self, name: str, ms: float, response: Response, text: str) -> None:
        self._screen.hop(name, duration(ms), f"request {response.request_id}  {text}")

    def _get(self, transaction_id: str) -> Response:
        return self._session.send(lambda token: self._client.get(token, transaction_id))

    def _trace_command(self, transaction_id: str) -> str:
        """The command that shows the transaction, for the same merchant and platform."""
        more = ["--as", self._args.username]
        more += ["--url", self._args.url] if self._args.url else []
        return f"merchant trace {transaction_id} {shlex.join(more)}"

    def token(self) -> int:
        """Prints a token."""
        self._screen.say(self._session.login())
        return 0

    def trace(self) -> int:
        """Prints the hops of a transaction."""
        hints = {404: "not one of this merchant's ids: the console lists them"}
        transaction = read(Transaction, expect(self._get(self._args.id), 200, hints))
        from devtools.merchant.trace import show, trace  # noqa: PLC0415 - slow to import

        show(trace(transaction.id, self._environ), transaction, self._screen)
        return 0

    def pay(self) -> int:
        """Pays, and follows the transaction to its final status."""
        response = self._post()
        accepted = read(Transaction, response)
        is_replay = response.headers.get("Idempotency-Replayed") == "true"
        text = f"transaction {accepted.id}{', replayed' if is_replay else ''}"
        self._hop("accepted", response.ms, response, text)
        self._screen.events(accepted)
        transaction = self._follow(accepted)
        later = self._trace_command(transaction.id)
        still = f"still open after {self._args.timeout:g} s; check again: {later}"
        self._screen.outcome(transaction, still)
        return _EXITS.get(transaction.status, _EXIT_OPEN)

    def _post(self) -> Response:
        args = self._args
        body = {"amount": args.amount, "currency": args.currency}
        if args.payment_method is not None:
            body["payment_method"] = args.payment_method
        self._session.login()
        try:
            response = self._session.send(
                lambda token: self._client.post_transaction(token, body, args.idempotency_key)
            )
            return expect(response, 202)
        except PlatformError as error:
            # Without the Core API's response the payment may still have been accepted.
            if isinstance(error, UnreachableError) or error.detail.endswith(_SEND_AGAIN):
                check = "it may have been accepted: check the console's payments first"
                repeat = "repeat the same command: its idempotency key makes that safe"
                error.hint += "\n" + (repeat if args.idempotency_key else check)
                error.detail = error.detail.removesuffix(_SEND_AGAIN)
            raise

    def _follow(self, accepted: Transaction) -> Transaction:
        polls, started, seen = 0, time.perf_counter(), len(accepted.timeline)
        transaction, last = accepted, None

        try:
            for response, transaction in follow(
                lambda: self._get(accepted.id), self._client.deadline
            ):
                polls, last = polls + 1, response
                self._screen.events(transaction, seen)
                seen = len(transaction.timeline)
        except PlatformError as error:
            error.detail = f"{accepted.id} was accepted, but its result is unknown: {error.detail}"
            error.hint = f"{error.hint}\nthen: {self._trace_command(accepted.id)}".strip()
            raise
        if last:
            ms = (time.perf_counter() - started) * 1000
            self._hop("followed", ms, last, f"the last of {polls}")
        return transaction


def follow(
    get: Callable[[], Response], deadline: Deadline
) -> Iterator[tuple[Response, Transaction]]:
    """Polls until the transaction is final or the deadline has passed.

    Continues while the platform is briefly unavailable.

    Raises:
        PlatformError: the platform refuses, or is still unavailable at the deadline.
    """
    interval_seconds = _POLL_SECONDS_MIN
    trouble: PlatformError | None = None
    while deadline.seconds_left():
        time.sleep(min(interval_seconds, deadline.seconds_left()))
        interval_seconds = min(interval_seconds * 1.5, _POLL_SECONDS_MAX)
        try:
            response = expect(get(), 200)
        except PlatformError as error:
            is_temporary = error.status == 429 or error.status >= 500
            if not (is_temporary or isinstance(error, UnreachableError)):
                raise
            # A request cut off by the deadline is no error: the transaction is still open.
            trouble = error if deadline.seconds_left() else trouble
            continue
        trouble = None
        transaction = read(Transaction, response)
        yield response, transaction
        if transaction.status in FINAL:
            return
    if trouble is not None:
        raise trouble
