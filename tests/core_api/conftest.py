from typing import Any

import pytest

from services.core_api.app import create_app
from tests.core_api.helpers import Client, settings


@pytest.fixture
def api(client: Any, redis_port: int) -> Client:  # noqa: ARG001  it empties Redis
    """The service on the private Redis, which is emptied first."""
    return Client(create_app(settings(redis_port)))
