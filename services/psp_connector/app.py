"""The connector, and its HTTP app: health and metrics."""

import os
import secrets
import socket
import time
from functools import partial

from services.common import redis_check, redis_client, store
from services.common.web import App, make_app
from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import Breaker
from services.psp_connector.connector import Connector
from services.psp_connector.metrics import QueueCollector
from services.psp_connector.queue import Queue
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import StripePsp
from services.psp_connector.sweep import Sweep

# Above the 200 ms that a queue read blocks; also the longest that Redis may block the main loop.
REDIS_TIMEOUT_SECONDS = 2.0
# Maximum interval between probes of a PSP that is down.
_PROBE_SECONDS_MAX = 30.0
# A lane's loop runs five times a second; a slow Redis may delay it by a few seconds. A lane without
# Redis or its replicas charges nothing.
_STUCK_SECONDS = 10.0


def build(settings: ConnectorSettings) -> tuple[Connector, App]:
    """Creates the connector and its HTTP app; nothing connects yet."""
    client = redis_client.connect_to(settings, REDIS_TIMEOUT_SECONDS)
    redis_check.at_start(client, settings)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    first_seconds = settings.psp_backoff_seconds
    partitions = store.partitions(settings.partitions)
    connector = Connector(
        [Queue(client, settings, name, partition) for partition in partitions],
        Sweep(client, partitions),
        StripePsp(settings),
        Breaker(settings.concurrency, Backoff(first_seconds, _PROBE_SECONDS_MAX)),
        Backoff(first_seconds, settings.psp_backoff_seconds_max),
        concurrency=settings.concurrency,
        attempts_max=settings.psp_attempts_max,
    )
    return connector, create_app(settings, connector, client)


def create_app(settings: ConnectorSettings, connector: Connector, client: store.Client) -> App:
    """Creates the HTTP app."""

    def check_loop() -> None:
        if time.monotonic() - connector.last_turn > _STUCK_SECONDS:
            raise TimeoutError

    return make_app(
        {},
        settings,
        checks={"redis": partial(redis_client.ping, client), "loop": check_loop},
        collectors=[
            connector.metrics.outcomes,
            connector.metrics.seconds,
            connector.metrics.paused,
            QueueCollector(client, store.partitions(settings.partitions)),
        ],
    )
