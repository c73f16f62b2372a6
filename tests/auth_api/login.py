"""Logins at an Auth API of the test's own."""

from pathlib import Path
from typing import Any

import falcon.testing
import jwt

from services.auth_api.app import create_app
from services.auth_api.settings import SHIPPED_USERS, AuthSettings

SECRET = "0123456789abcdef0123456789abcdef"
ENVIRON = {
    "HTTP_PORT": "1", "JWT_SECRET": SECRET, "ALLOWED_HOSTS": "falconframework.org",
    "TRUSTED_PROXIES": "127.0.0.1",
}  # fmt: skip
Client = falcon.testing.TestClient


def api_of(file: Path = SHIPPED_USERS) -> Client:
    return Client(create_app(AuthSettings.read(ENVIRON | {"USERS_FILE": str(file)})))


def log_in(
    api: Client, username: str, password: str = "password", address: str = "127.0.0.1"
) -> Any:
    """The response to a login, which a trusted proxy forwards from this address."""
    body = {"username": username, "password": password}
    return api.simulate_post("/token", json=body, headers={"X-Forwarded-For": address})


def claims(result: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(
        result.json["token"], SECRET, algorithms=["HS256"], audience="core-api"
    )
    return decoded
