"""The Core API: accepts transactions, queues them and reports their status."""

from functools import partial

from services.common import openapi, redis_check, redis_client, redis_errors, store
from services.common.tokens import Tokens
from services.common.web import App, make_app
from services.core_api.resources import (
    Authentication,
    LoyaltyResource,
    TransactionPathResource,
    TransactionResource,
    TransactionsResource,
)
from services.core_api.settings import CoreSettings
from services.core_api.transactions import Transactions

# A merchant gets 503 within a second of a Redis failure: a refused connection is retried once
# immediately, a silent one times out after this.
REDIS_TIMEOUT_SECONDS = 0.8


def create_app(settings: CoreSettings) -> App:
    """Creates the app; without Redis it starts, and only requests that need Redis fail."""
    client = redis_client.connect_to(settings, REDIS_TIMEOUT_SECONDS)
    redis_check.at_start(client, settings)
    partitions = store.partitions(settings.partitions)
    transactions = Transactions(
        client,
        max(settings.queue_limit // len(partitions), 1),
        partitions,
        replicas_min=settings.redis_replicas_min,
        check=partial(redis_check.check, client, settings),
    )
    authentication = Authentication(Tokens(settings))
    root = TransactionsResource(authentication, transactions)
    routes = {
        "/": root,
        "/transaction": TransactionPathResource(root),
        "/loyalty": LoyaltyResource(authentication, transactions),
        "/{transaction_id:uuid}": TransactionResource(authentication, transactions),
    }
    document = openapi.document(
        "Core API",
        "Accepts transactions, queues them and reports their status.",
        routes,
        security={"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    )
    app = make_app(routes, settings, checks={"redis": transactions.check}, openapi=document)
    redis_errors.handle_errors(
        app,
        "Transactions are temporarily unavailable.",
        unsure="The request may have been accepted: send it again with the same Idempotency-Key.",
    )
    return app
