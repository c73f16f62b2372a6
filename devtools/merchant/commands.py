"""The commands, after their arguments are parsed."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping

from devtools.merchant.client import (
    LOYALTY,
    TRANSACTIONS,
    Client,
    Deadline,
    Response,
    Session,
    expect,
    read,
)
from devtools.merchant.errors import PlatformError, UnreachableError
from devtools.merchant.payment import follow
from devtools.merchant.report import Screen, duration, points
from devtools.merchant.trace import console_url, show, trace
from services.common.transaction import Transaction
from services.core_api.models import Loyalty, Page

EXIT_OPEN = 3
_LIMIT_MAX = 100
_EXITS = {"captured": 0, "declined": 1, "failed": 1}


def run(args: argparse.Namespace, url: str, password: str, environ: Mapping[str, str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        PlatformError: the platform cannot be reached, or refuses.
    """
    with Client(url, Deadline(args.timeout)) as client:
        command = Command(args, client, password, environ)
        action: Callable[[Command], int | None] = _ACTIONS[args.command]
        return action(command) or 0


class Command:
    """A command's arguments, client and output."""

    def __init__(
        self, args: argparse.Namespace, client: Client, password: str, environ: Mapping[str, str]
    ) -> None:
        self.args = args
        self.client = client
        self.session = Session(client, args.username, password, self._on_login)
        self.screen = Screen(sys.stdout, environ)

    def ask(self, request: Callable[[str], Response]) -> Response:
        """Sends a request that must get 200."""
        return expect(self.session.send(request), 200)

    def transaction(self) -> tuple[Response, Transaction]:
        """The transaction of the argument ID."""
        response = self.ask(lambda token: self.client.get(token, self.args.id))
        return response, read(Transaction, response)

    def page(self, path: str) -> Response:
        """The first page of a listing, with the requested number of items."""
        return self.ask(lambda token: self.client.page(path, token, self.args.limit))

    def again(self, arguments: str) -> str:
        """A follow-up command for the same merchant and platform."""
        more = ["--as", self.args.username]
        more += ["--url", self.args.url] if self.args.url else []
        more += ["--password-stdin"] if self.args.password_stdin else []
        return f"merchant {arguments} {shlex.join(more)}"

    def hop(self, name: str, ms: float, response: Response, text: str) -> None:
        """Prints a request of `pay`."""
        self.screen.hop(name, duration(ms), f"request {response.request_id}  {text}")

    def _on_login(self, response: Response) -> None:
        if self.args.command == "pay":
            self.hop("token", response.ms, response, f"for {self.args.username}")

    def end(self, response: Response, *, has_more: bool = False) -> None:
        """Prints the last lines."""
        if has_more:
            more = self.again(f"{self.args.command} --limit {_LIMIT_MAX}")
            self.screen.say(
                f"older ones: {more if self.args.limit < _LIMIT_MAX else 'the console'}"
            )
        self.screen.say(f"request {response.request_id}")


def _token(command: Command) -> None:
    command.screen.say(command.session.login())


def _show(command: Command) -> None:
    response, transaction = command.transaction()
    command.screen.transaction(transaction)
    command.end(response)


def _trace(command: Command) -> None:
    _response, transaction = command.transaction()
    url = console_url(command.client.url)
    rows, note = trace(transaction.id, url, command.client.deadline)
    show(rows, note, transaction, command.screen)


def _list(command: Command) -> None:
    response = command.page(TRANSACTIONS)
    page = read(Page, response)
    if not page.transactions:
        command.screen.say(f"none; a first one: {command.again('pay 1250 USD')}")
    command.screen.transactions(page.transactions)
    command.end(response, has_more=page.next_cursor is not None)


def _loyalty(command: Command) -> None:
    response = command.page(LOYALTY)
    loyalty = read(Loyalty, response)
    command.screen.say(points(loyalty.points))
    command.screen.credits(loyalty.ledger)
    command.end(response, has_more=loyalty.next_cursor is not None)


def _pay(command: Command) -> int:
    response = _post(command)
    transaction = read(Transaction, response)
    is_replay = response.headers.get("Idempotency-Replayed") == "true"
    text = f"transaction {transaction.id}{', replayed' if is_replay else ''}"
    command.hop("accepted", response.ms, response, text)
    command.screen.events(transaction)
    show_it = command.again(f"show {transaction.id}")
    still, exit_code = f"not waiting; check later: {show_it}", 0
    if not command.args.no_wait:
        transaction = _follow(command, transaction)
        still = f"still open after {command.args.timeout:g} s; check again: {show_it}"
        exit_code = _EXITS.get(transaction.status, EXIT_OPEN)
    command.screen.outcome(transaction, still)
    return exit_code


def _post(command: Command) -> Response:
    args = command.args
    body = {"amount": args.amount, "currency": args.currency}
    if args.payment_method is not None:
        body["payment_method"] = args.payment_method
    command.session.login()
    try:
        response = command.session.send(
            lambda token: command.client.post_transaction(token, body, args.idempotency_key)
        )
    except UnreachableError as error:
        # Without a response the payment may still have been accepted.
        look = f"check whether it was accepted before you pay again: {command.again('list')}"
        repeat = "repeat the same command: its idempotency key makes that safe"
        error.hint += "\n" + (repeat if args.idempotency_key else look)
        raise
    return expect(response, 202)


def _follow(command: Command, accepted: Transaction) -> Transaction:
    polls, started, seen = 0, time.perf_counter(), len(accepted.timeline)
    transaction, last = accepted, None

    def get() -> Response:
        return command.session.send(lambda token: command.client.get(token, accepted.id))

    def on_trouble(error: PlatformError) -> None:
        command.screen.say(f"no status: {error.detail}; retrying until the timeout")

    try:
        for response, transaction in follow(get, command.client.deadline, on_trouble):
            polls, last = polls + 1, response
            command.screen.events(transaction, seen)
            seen = len(transaction.timeline)
    except PlatformError as error:
        error.detail = f"{accepted.id} was accepted, but its result is unknown: {error.detail}"
        error.hint = f"{error.hint}\nthen: {command.again(f'show {accepted.id}')}".strip()
        raise
    if last:
        ms = (time.perf_counter() - started) * 1000
        command.hop("followed", ms, last, f"the last of {polls}")
    return transaction


_ACTIONS: dict[str, Callable[[Command], int | None]] = {
    "pay": _pay,
    "show": _show,
    "trace": _trace,
    "list": _list,
    "loyalty": _loyalty,
    "token": _token,
}
