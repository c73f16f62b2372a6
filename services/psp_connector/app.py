"""The connector's HTTP app: health and metrics."""

import time
from functools import partial

from services.common import redis_client, store
from services.common.web import App, make_app
from services.psp_connector.connector import Connector
from services.psp_connector.metrics import QueueCollector
from services.psp_connector.settings import ConnectorSettings

# The main loop runs five times a second; a slow Redis may delay it by a few seconds.
_STUCK_SECONDS = 10.0


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
            connector.metrics,
            QueueCollector(client, store.partitions(settings.partitions)),
        ],
    )
