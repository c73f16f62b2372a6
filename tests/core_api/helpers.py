"""The Core API in this process, and merchants who pay."""

from collections.abc import Iterator
from typing import Any

import falcon.testing

from services.common.tokens import Tokens
from services.core_api.settings import CoreSettings

SECRET = "0123456789abcdef0123456789abcdef"
OLD_SECRET = "fedcba9876543210fedcba9876543210"
PAYMENT = {"amount": 1250, "currency": "USD"}
Client = falcon.testing.TestClient


def settings(port: int, **more: str) -> CoreSettings:
    environ = {
        "HTTP_PORT": "1",
        "ALLOWED_HOSTS": "falconframework.org",
        "JWT_SECRET": SECRET,
        "JWT_SECRET_PREVIOUS": OLD_SECRET,
        "REDIS_URL": f"redis://services:x@127.0.0.1:{port}/0",
    }
    return CoreSettings.read(environ | more)


def bearer(user_id: int = 1, *, enabled: bool = True) -> dict[str, str]:
    token = Tokens(settings(1)).issue(user_id, f"user{user_id}", enabled=enabled)
    return {"Authorization": f"Bearer {token}"}


def pages(api: Client, path: str) -> Iterator[Any]:
    """The responses with all pages of a list, two entries each."""
    params: dict[str, Any] = {"limit": 2}
    for _page in range(6):
        yield (result := api.simulate_get(path, headers=bearer(), params=params))
        params["cursor"] = result.json.get("next_cursor")
        if not params["cursor"]:
            return
    raise AssertionError("more pages than entries")


def pay(api: Client, body: Any = PAYMENT, **headers: str) -> Any:
    return api.simulate_post("/", json=body, headers=bearer() | headers)
