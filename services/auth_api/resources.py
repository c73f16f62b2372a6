"""`POST /token`: issues a token for a user name and password."""

from collections.abc import Sequence
from typing import Annotated

import falcon
from pydantic import BaseModel, ConfigDict, Field
from structlog.contextvars import bind_contextvars

from services.auth_api.addresses import client_address
from services.auth_api.directory import UserDirectory
from services.auth_api.limits import LoginLimits
from services.auth_api.passwords import PASSWORD_CHARACTERS_MAX, Passwords
from services.auth_api.settings import Network
from services.auth_api.userfile import USERNAME_CHARACTERS_MAX, User
from services.common import openapi
from services.common.problems import Problem
from services.common.tokens import LIFETIME_SECONDS, Tokens
from services.common.web import read_json


class TokenRequest(BaseModel):
    """Credentials."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    username: Annotated[str, Field(min_length=1, max_length=USERNAME_CHARACTERS_MAX)]
    password: Annotated[str, Field(min_length=1, max_length=PASSWORD_CHARACTERS_MAX)]


class TokenResponse(BaseModel):
    """A token; field names as in RFC 6749, 5.1, except `token` for `access_token`."""

    token: str
    token_type: str = "Bearer"  # noqa: S105  the name of a scheme
    expires_in: int = Field(default=LIFETIME_SECONDS, description="seconds")


class TokenResource:
    """`POST /token`."""

    def __init__(
        self,
        users: UserDirectory,
        passwords: Passwords,
        limits: LoginLimits,
        tokens: Tokens,
        proxies: Sequence[Network],
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._limits = limits
        self._tokens = tokens
        self._proxies = proxies

    @openapi.operation(
        "Get a token for a user name and password",
        TokenResponse,
        request=TokenRequest,
        success=(200, "A token."),
        errors={
            401: "User name or password is wrong.",
            429: "Too many failed logins; see Retry-After.",
            503: "Too many logins at the moment; see Retry-After.",
        },
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        request = read_json(req, TokenRequest)
        user = self._log_in(request, req)
        token = self._tokens.issue(user.id, user.username, enabled=user.enabled)
        bind_contextvars(user_id=user.id)
        resp.set_header("Cache-Control", "no-store")
        resp.text = TokenResponse(token=token).model_dump_json()

    def _log_in(self, request: TokenRequest, req: falcon.Request) -> User:
        name, password = request.username, request.password
        user = self._users.find(name)
        stored = user.password_hash if user else None
        guess = self._passwords.mark(name, stored, password)
        address = client_address(req, self._proxies)
        is_known = self._passwords.is_cached(guess)
        if user and is_known and self._limits.is_trusted(name, address):
            return user

        def verify() -> bool:
            return is_known or self._passwords.verify(name, stored, password)

        if self._limits.attempt(name, address, guess, verify) and user:
            return user
        raise Problem(
            401,
            "User name or password is wrong.",
            code="bad-credentials",
            # RFC 9110, 15.5.2 requires a challenge; no registered scheme means "in the body".
            headers={"WWW-Authenticate": 'Password realm="platform"'},
        )
