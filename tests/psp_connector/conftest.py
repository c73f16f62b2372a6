from collections.abc import Iterator
from typing import Any

import pytest

from services.common import redis_client
from services.psp_connector import bounded, connector, dispatch, lane, saver
from services.psp_connector.settings import ConnectorSettings
from tests.http_service import Service, service_on
from tests.psp_connector.payments import Payments


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the connector's pauses to a tenth or less."""
    for module, name, value in (
        (dispatch, "BLOCK_MS", 20), (lane, "BLOCK_MS", 20), (lane, "UPKEEP_SECONDS", 0.05),
        (connector, "UPKEEP_SECONDS", 0.05), (lane, "_RECONNECT_SECONDS", 0.01),
        (saver, "_PAUSE_SECONDS", 0.01), (bounded, "_WATCH_SECONDS", 0.02),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def settings(redis_port: int) -> ConnectorSettings:
    return ConnectorSettings(
        http_port=1, psp_url="http://127.0.0.1:1",
        redis_url=f"redis://services:x@127.0.0.1:{redis_port}/0",
        psp_backoff_seconds=0.01, psp_attempts_max=3,
        deadletter_days=36_500,  # more than the age of the Unix epoch
    )  # fmt: skip


@pytest.fixture
def payments(client: Any, settings: ConnectorSettings) -> Iterator[Payments]:
    with redis_client.connect(settings.redis_url, timeout_seconds=2) as connection:
        yield Payments(connection, settings, client)


@pytest.fixture
def psp() -> Iterator[Service]:
    with service_on() as server:
        yield server
