"""Reads the pages' data from Redis, process-compose, the services and the logs.

Everything here blocks; pages call it in a thread. Each method raises one of EXPECTED_ERRORS
if its source is unavailable.
"""

import heapq
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import redis

from devtools import loglines
from devtools.catalog import SERVICES
from devtools.console.rates import Rates
from devtools.console.settings import ConsoleSettings
from devtools.console.spans import SpanStore
from devtools.console.waterfall import Span
from devtools.loglines import Line
from devtools.merchant.errors import PlatformError
from devtools.supervisor import Supervisor, SupervisorError
from services.auth_api.userfile import UsersError, load
from services.common import redis_client, store
from services.common.problems import Problem
from services.common.transaction import Credit, Transaction
from services.core_api.models import Loyalty, Page
from services.core_api.transactions import PAGE_MAX, Transactions
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.metrics import QueueCollector

P = TypeVar("P", "Page", "Loyalty")


class RefusedError(Exception):
    """The request cannot be carried out; the message says why."""


_UNAVAILABLE: dict[type[Exception], str] = {
    **dict.fromkeys(
        redis_client.ERRORS,
        "Redis does not respond. See the page Stack: is it stopped or still starting?",
    ),
    SupervisorError: "process-compose does not respond: the stack is stopped or was killed. "
    "`platform up -D` starts it.",
    httpx.HTTPError: "The PSP sandbox does not respond. See the page Stack: is it stopped?",
}
EXPECTED_ERRORS: tuple[type[Exception], ...] = (
    RefusedError, *_UNAVAILABLE, PlatformError, Problem, UsersError,
)  # fmt: skip
RESPONSE_SECONDS_MAX = 2.0
# Payments searched by a filter: 2,000 take about 150 ms.
EXAMINED_MAX = 2_000


@dataclass(frozen=True)
class Payment:
    """One payment with its spans and credit."""

    record: dict[str, Any]
    """As the Core API returns it."""
    merchant: str
    spans: list[Span]
    credit: Credit | None

    def curl(self, url: str) -> str:
        """The command that sends the same payment again to the router at `url`."""
        fields = ("amount", "currency", "payment_method")
        body = json.dumps({name: self.record[name] for name in fields})
        token = f"Authorization: Bearer $(merchant token --as {shlex.quote(self.merchant)})"
        return f'curl -s {url}/transactions -H "{token}" --json {shlex.quote(body)}'


class Sources:
    """The stack as the console sees it."""

    def __init__(self, settings: ConsoleSettings, spans: SpanStore) -> None:
        self.settings = settings
        self.first_port = settings.platform_port
        self.router_url = SERVICES["router"].url(settings.platform_port)
        self.logs = settings.platform_state / "logs"
        self.spans = spans
        self.redis = redis_client.connect_to(settings, RESPONSE_SECONDS_MAX)
        self.supervisor = Supervisor(settings.pc_socket_path)
        self.partitions = store.partitions(settings.partitions)
        self.deadletters = DeadLetters(self.redis, self.partitions)
        self.rates = Rates(self.first_port, self.supervisor)
        self.password = settings.merchant_password.get_secret_value()
        self._transactions = Transactions(self.redis, 0, self.partitions)
        self._queue = QueueCollector(self.redis, self.partitions)

    def merchants(self) -> dict[int, str]:
        """The merchants' names by id."""
        return {user.id: user.username for user in load(self.settings.users_file)}

    def payments(
        self, merchant: str | None, matches: Callable[[Transaction], bool], limit: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """The latest payments of a merchant or all, and whether older ones were not searched."""
        names = self.merchants()
        newest_first = heapq.merge(
            *(self._payments_of(id_) for id_, name in names.items() if merchant in {None, name}),
            key=lambda payment: payment.created_at,
            reverse=True,
        )
        matching = filter(matches, itertools.islice(newest_first, EXAMINED_MAX))
        rows = [
            _document(payment) | {"merchant": names[payment.user_id]}
            for payment in itertools.islice(matching, limit)
        ]
        return rows, len(rows) < limit and next(newest_first, None) is not None

    def _payments_of(self, user_id: int) -> Iterator[Transaction]:
        pages = _pages(lambda cursor: self._transactions.page(user_id, PAGE_MAX, cursor))
        return (transaction for page in pages for transaction in page.transactions)

    def payment(self, transaction_id: str) -> Payment | None:
        """One payment; None if there is none."""
        users = (self.redis.hget(p.transaction(transaction_id), "user_id") for p in self.partitions)
        owner = next(filter(None, users), "")
        if not re.fullmatch(r"[0-9]{1,15}", owner):  # as in a token
            return None
        record = self._transactions.get(int(owner), transaction_id)
        if record is None:
            return None
        merchant = self.merchants().get(record.user_id, f"user {owner}")
        spans = self.spans.of_transaction(transaction_id)
        credit = self._credit(record.user_id, transaction_id)
        return Payment(_document(record), merchant, spans, credit)

    def _credit(self, user_id: int, transaction_id: str) -> Credit | None:
        pages = _pages(lambda cursor: self._transactions.loyalty(user_id, PAGE_MAX, cursor))
        ledger = (entry for page in pages for entry in page.ledger)
        return next((entry for entry in ledger if entry.transaction_id == transaction_id), None)

    def lines(self, transaction_id: str) -> list[Line]:
        """The log lines about a payment."""
        return loglines.about(self.logs, transaction_id)

    def gauges(self) -> dict[str, float]:
        """The queue's gauges by their names in `/metrics`: sums, or the greatest age."""
        gauges = [metric for metric in self._queue.collect() if metric.samples]
        if not gauges:
            raise redis.ConnectionError("Redis does not respond")
        return {
            gauge.name: (max if gauge.name.endswith("seconds") else sum)(
                sample.value for sample in gauge.samples
            )
            for gauge in gauges
        }

    def sandbox(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the sandbox's control interface; returns the JSON response, if any."""
        url = f"{SERVICES['psp-sandbox'].url(self.first_port)}/_sandbox{path}"
        token = self.settings.sandbox_token
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        response = httpx.request(
            method, url, json=body, headers=headers, timeout=RESPONSE_SECONDS_MAX, trust_env=False
        )
        response.raise_for_status()
        return response.json() if response.content else None


def _document(transaction: Transaction) -> dict[str, Any]:
    return transaction.model_dump(mode="json", exclude_none=True)


def _pages(read: Callable[[str | None], P]) -> Iterator[P]:
    """Reads a list page by page, at most a page more than EXAMINED_MAX items."""
    cursor: str | None = None
    for _page in range(EXAMINED_MAX // PAGE_MAX + 1):
        page = read(cursor)
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return


def message_for(error: BaseException) -> str:
    """The user-facing message: what is unavailable and what to do."""
    if isinstance(error, PlatformError):
        return f"{error.detail}. {error.hint}".strip()
    if isinstance(error, Problem):
        return f"{error.description} The page Logs has the reason."
    texts = (text for kind, text in _UNAVAILABLE.items() if isinstance(error, kind))
    return next(texts, str(error))
