"""The commands, after their arguments are parsed."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from devtools.merchant.answers import Loyalty, Page, Transaction, read
from devtools.merchant.client import Client, Deadline, Session, expect
from devtools.merchant.errors import PlatformError, UnreachableError
from devtools.merchant.payment import follow
from devtools.merchant.report import Screen, points
from devtools.merchant.trace import as_json, show, trace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import TextIO

    from devtools.merchant.client import Answer

EXIT_OPEN = 3
_EXITS = {"captured": 0, "declined": 1, "failed": 1}


def run(args: argparse.Namespace, url: str, password: str, stdout: TextIO) -> int:
    """Runs the command; returns its exit code.

    Raises:
        PlatformError: the platform cannot be reached, or refuses.
    """
    with Client(url, Deadline(args.timeout)) as client:
        command = Command(args, client, password, stdout)
        action: Callable[[Command], int] = _ACTIONS[args.command]
        return action(command)


class Command:
    """A command's arguments and its client, screen and session."""

    def __init__(
        self, args: argparse.Namespace, client: Client, password: str, stdout: TextIO
    ) -> None:
        self.args = args
        self.client = client
        self.session = Session(client, args.username, password)
        self.screen = Screen(stdout)
        self._stdout = stdout

    def ask(self, request: Callable[[str], Answer]) -> Answer:
        """Sends a request that must get 200."""
        return expect(self.session.send(request), 200)

    def again(self, words: str) -> str:
        """A follow-up command for the same merchant and platform."""
        more = ["--as", self.args.username]
        more += ["--url", self.args.url] if self.args.url else []
        more += ["--password-stdin"] if self.args.password_stdin else []
        return f"merchant {words} {shlex.join(more)}"

    def print_json(self, document: object) -> None:
        """Prints the document of --json."""
        print(json.dumps(document, indent=2), file=self._stdout, flush=True)

    def end(self, answer: Answer, following: str | None) -> None:
        """The last lines of a listing."""
        if following:
            words = f"{self.args.command} --limit {self.args.limit} --cursor {following}"
            self.screen.say(f"older ones: {self.again(words)}")
        self.screen.say(f"request {answer.request_id}")


def _token(command: Command) -> int:
    command.screen.say(command.session.login())
    return 0


def _show(command: Command) -> int:
    answer = command.ask(lambda token: command.client.get(token, command.args.id))
    if command.args.json:
        command.print_json(answer.body)
        return 0
    command.screen.transaction(read(Transaction, answer))
    command.screen.say(f"request {answer.request_id}")
    return 0


def _trace(command: Command) -> int:
    answer = command.ask(lambda token: command.client.get(token, command.args.id))
    transaction = read(Transaction, answer)
    traced = trace(transaction, command.args.logs)
    if command.args.json:
        command.print_json({"transaction": answer.body, **as_json(traced)})
    else:
        show(traced, transaction, command.screen)
    return 0


def _list(command: Command) -> int:
    args, client = command.args, command.client
    answer = command.ask(lambda token: client.list(token, args.limit, args.cursor))
    if args.json:
        command.print_json(answer.body)
        return 0
    page = read(Page, answer)
    if not page.transactions:
        command.screen.say(f"none; a first one: {command.again('pay 1250 USD')}")
    command.screen.transactions(page.transactions)
    command.end(answer, page.next_cursor)
    return 0


def _loyalty(command: Command) -> int:
    args, client = command.args, command.client
    answer = command.ask(lambda token: client.loyalty(token, args.limit, args.cursor))
    if args.json:
        command.print_json(answer.body)
        return 0
    loyalty = read(Loyalty, answer)
    command.screen.say(points(loyalty.points))
    command.screen.credits(loyalty.ledger)
    command.end(answer, loyalty.next_cursor)
    return 0


@dataclass
class Payment:
    """A payment in progress and its report."""

    command: Command
    hops: list[dict[str, Any]] = field(default_factory=list)
    events_shown: int = 0

    def hop(self, name: str, ms: float, request_id: str, text: str) -> None:
        """Prints a hop of this client; --json collects them."""
        self.hops.append({"hop": name, "ms": round(ms, 2), "request_id": request_id})
        if not self.command.args.json:
            self.command.screen.request(name, ms, request_id, text)

    def events(self, transaction: Transaction) -> None:
        """Prints the new events of the timeline."""
        if not self.command.args.json:
            self.command.screen.events(transaction, self.events_shown)
        self.events_shown = len(transaction.timeline)

    def end(self, answer: Answer, transaction: Transaction, more: str = "") -> None:
        """Prints the result."""
        if self.command.args.json:
            what_to_do = {"what_to_do": more} if more else {}
            self.command.print_json({"hops": self.hops, "transaction": answer.body, **what_to_do})
        else:
            self.command.screen.outcome(transaction, more)


def _pay(command: Command) -> int:
    payment = Payment(command)
    name = command.args.username
    command.session.on_login = lambda answer: payment.hop(
        "token", answer.ms, answer.request_id, f"for {name}"
    )
    answer = _post(command)
    transaction = read(Transaction, answer)
    replayed = ", replayed" if answer.headers.get("Idempotency-Replayed") == "true" else ""
    what = f"transaction {transaction.id}{replayed}"
    payment.hop("accepted", answer.ms, answer.request_id, what)
    payment.events(transaction)
    show = command.again(f"show {transaction.id}")
    if command.args.no_wait:
        payment.end(answer, transaction, f"not waited for; look later: {show}")
        return 0
    answer, transaction = _follow(payment, answer, transaction)
    if transaction.is_final:
        payment.end(answer, transaction)
    else:
        more = f"still open after {command.args.timeout:g} s; look again: {show}"
        payment.end(answer, transaction, more)
    return _EXITS.get(transaction.status, EXIT_OPEN)


def _post(command: Command) -> Answer:
    args = command.args
    wanted = {"amount": args.amount, "currency": args.currency}
    if args.payment_method is not None:
        wanted["payment_method"] = args.payment_method
    command.session.login()
    try:
        answer = command.session.send(
            lambda token: command.client.post_transaction(token, wanted, args.idempotency_key)
        )
    except UnreachableError as error:
        # Without a response the payment may still have been accepted.
        look = f"look whether it was accepted before you pay again: {command.again('list')}"
        repeat = "repeat the same command: its idempotency key makes that safe"
        error.hint += "\n" + (repeat if args.idempotency_key else look)
        raise
    return expect(answer, 202)


def _follow(
    payment: Payment, answer: Answer, transaction: Transaction
) -> tuple[Answer, Transaction]:
    command, transaction_id = payment.command, transaction.id
    latest, asked, started = (answer, transaction), 0, time.perf_counter()

    def ask() -> Answer:
        return command.session.send(lambda token: command.client.get(token, transaction_id))

    def say(error: PlatformError) -> None:
        if not command.args.json:
            command.screen.say(f"no news: {error.detail}; asking on until the time is up")

    try:
        for latest in follow(ask, command.client.deadline, say):
            payment.events(latest[1])
            asked += 1
    except PlatformError as error:
        error.detail = f"{transaction_id} was accepted, but what became of it? {error.detail}"
        error.hint = f"{error.hint}\nthen: {command.again(f'show {transaction_id}')}".strip()
        raise
    ms = (time.perf_counter() - started) * 1000
    payment.hop("followed", ms, latest[0].request_id, f"the last of {asked}")
    return latest


_ACTIONS: dict[str, Callable[[Command], int]] = {
    "pay": _pay,
    "show": _show,
    "trace": _trace,
    "list": _list,
    "loyalty": _loyalty,
    "token": _token,
}
