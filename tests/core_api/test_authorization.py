"""Authentication and authorization of the Core API: tokens, headers and users."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt
import pytest

from services.common import store
from tests.core_api.helpers import OLD_SECRET, PAYMENT, SECRET, Client, bearer, pay


def test_the_token_may_come_in_the_body(api: Client) -> None:
    """HTTPie's `token=…` works, and the token is not stored."""
    token = bearer()["Authorization"].removeprefix("Bearer ")
    result = api.simulate_post("/", json=PAYMENT | {"token": token})
    assert result.status_code == 202
    assert "token" not in result.json


def test_a_token_in_both_places_is_refused(api: Client) -> None:
    """RFC 6750, 2: a client uses one way only."""
    assert pay(api, PAYMENT | {"token": "x"}).status_code == 400


def sign(key: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": "auth-api", "aud": "core-api", "sub": "1", "username": "alice", "enabled": True,
        "iat": now, "exp": now + 30, "jti": "x",
    } | changes  # fmt: skip
    return jwt.encode({k: v for k, v in claims.items() if v is not ...}, key, algorithm=algorithm)


def test_the_previous_secret_still_verifies(api: Client) -> None:
    """During key rotation, tokens signed with the previous secret are valid."""
    headers = {"Authorization": f"Bearer {sign(OLD_SECRET)}"}
    assert api.simulate_get("/", headers=headers).status_code == 200


# Each claim is also missing once.
WRONG_CLAIMS: dict[str, tuple[Any, ...]] = {
    "iss": ("somebody",), "aud": ("somebody", ["core-api-2"]), "sub": (1, "alice", "1; drop"),
    "username": (), "enabled": ("true", 1), "iat": (), "exp": ("soon", 10**400), "jti": (),
}  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: sign("another secret of thirty-two bytes"),
        lambda: sign(algorithm="HS512", key=SECRET * 2),
        lambda: jwt.encode({"sub": "1"}, "", algorithm="none"),
        lambda: sign(exp=int(time.time()) - 1, iat=int(time.time()) - 31),
        lambda: sign(iat=int(time.time()) + 3600),
        lambda: sign(exp=int(time.time()) + 31),
        *[
            partial(sign, **{claim: value})
            for claim, values in WRONG_CLAIMS.items()
            for value in (..., *values)
        ],
        *[partial(str, token) for token in ("x.y.z", "....", "é" * 10, "a" * 5000)],
    ],
)
def test_an_invalid_token_is_refused(api: Client, make: Callable[[], str]) -> None:
    """A token with any invalid claim, key or algorithm gets 401 with a challenge."""
    token = make()  # now: one made when tests are collected may have expired
    encoded = token.encode().decode("latin-1")
    for result in (
        api.simulate_get("/", headers={"Authorization": f"Bearer {encoded}"}),
        api.simulate_post("/", json=PAYMENT | {"token": token}),
    ):
        assert (result.status_code, result.json["code"]) == (401, "invalid-token")
        assert 'error="invalid_token"' in result.headers["www-authenticate"]
        assert token[:40] not in result.text


@pytest.mark.parametrize("start", ["", "Bearer", "Basic ", None])
def test_a_bad_authorization_header_is_refused(api: Client, start: str | None) -> None:
    """A valid token without its scheme, or with another one, gets 401, as does none at all."""
    header = "Bearer " if start is None else start + sign()
    assert api.simulate_get("/", headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize(
    ("body", "content_type"),
    [("", None), ("{}", "application/json"), ("{", "application/json"), ("a=b", "text/plain")],
)
def test_authentication_comes_before_validation(
    api: Client, body: str, content_type: str | None
) -> None:
    """Without a token the response is 401 even if the body is malformed."""
    headers = {"Content-Type": content_type} if content_type else {}
    result = api.simulate_post("/", body=body, headers=headers)
    assert (result.status_code, result.json["code"]) == (401, "unauthorized")
    assert result.headers["www-authenticate"] == 'Bearer realm="transactions"'


def test_a_disabled_user_is_refused_everywhere(api: Client, client: Any) -> None:
    """Every request of a disabled user gets 403; nothing is queued."""
    headers = bearer(3, enabled=False)
    assert api.simulate_post("/", json=PAYMENT, headers=headers).status_code == 403
    assert api.simulate_get("/", headers=headers).status_code == 403
    assert client.xlen(store.WHOLE.queue) == 0
