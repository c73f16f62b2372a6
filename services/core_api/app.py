"""The Core API: takes transactions, queues them, and tells how they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
import structlog

from services.common import problems, store
from services.common.problems import Unavailable
from services.common.tokens import Tokens
from services.common.web import make_app
from services.core_api.openapi import DOCUMENT
from services.core_api.resources import (
    Authentication,
    LoyaltyResource,
    TransactionPathResource,
    TransactionResource,
    TransactionsResource,
)
from services.core_api.transactions import Transactions

if TYPE_CHECKING:
    import falcon

    from services.common.web import App
    from services.core_api.settings import CoreSettings

# A merchant is told within a second that Redis is away: a refused connection is tried twice at
# once, a silent one is given up after this.
REDIS_TIMEOUT_SECONDS = 0.8

_log = structlog.get_logger()


def create_app(settings: CoreSettings, client: store.Client | None = None) -> App:
    """Builds the service; it connects to Redis when it first needs it."""
    if client is None:
        client = store.connect(settings.redis_url, timeout_seconds=REDIS_TIMEOUT_SECONDS)
    transactions = Transactions(client, settings.queue_limit)
    authentication = Authentication(Tokens(settings))
    root = TransactionsResource(authentication, transactions)
    app = make_app(
        {
            "/": root,
            "/transaction": TransactionPathResource(root),
            "/loyalty": LoyaltyResource(authentication, transactions),
            "/{transaction_id:uuid}": TransactionResource(authentication, transactions),
        },
        settings,
        checks={"redis": lambda: _check(client)},
        openapi=DOCUMENT,
    )
    app.add_error_handler(redis.RedisError, _redis_error)
    return app


def _check(client: store.Client) -> None:
    client.ping()


def _redis_error(
    req: falcon.Request, resp: falcon.Response, error: redis.RedisError, _params: dict[str, Any]
) -> None:
    # Away, slow, loading, full or read-only: for the client it is all one.
    _log.error(
        "redis", request_id=req.context.request_id, reason=f"{type(error).__name__}: {error}"
    )
    unavailable = Unavailable("The transactions cannot be reached at the moment.")
    problems.answer(req, resp, unavailable)
