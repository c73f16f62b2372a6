"""`POST /token`: user name and password for a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from services.auth_api.passwords import PASSWORD_CHARACTERS_MAX
from services.auth_api.userfile import USERNAME_CHARACTERS_MAX
from services.problems import Problem
from services.tokens import LIFETIME_SECONDS, Tokens
from services.web import read_json

if TYPE_CHECKING:
    import falcon

    from services.auth_api.limits import LoginLimits
    from services.auth_api.passwords import Passwords
    from services.auth_api.userfile import User
    from services.auth_api.users import UserDirectory


class TokenRequest(BaseModel):
    """Who wants a token."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    username: Annotated[str, Field(min_length=1, max_length=USERNAME_CHARACTERS_MAX)]
    password: Annotated[str, Field(min_length=1, max_length=PASSWORD_CHARACTERS_MAX)]


class TokenAnswer(BaseModel):
    """A token, as RFC 6749, 5.1 names its parts (`token` for `access_token`)."""

    token: str
    token_type: str = "Bearer"  # noqa: S105  the name of a scheme
    expires_in: int = Field(default=LIFETIME_SECONDS, description="seconds")


class TokenResource:
    """Where tokens are made."""

    def __init__(
        self, users: UserDirectory, passwords: Passwords, limits: LoginLimits, tokens: Tokens
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._limits = limits
        self._tokens = tokens

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        wanted = read_json(req, TokenRequest)
        user = self._log_in(wanted, _address(req))
        token = self._tokens.issue(user.id, user.username, enabled=user.enabled)
        req.context.log = {"user_id": user.id}
        resp.set_header("Cache-Control", "no-store")
        resp.media = TokenAnswer(token=token).model_dump()

    def _log_in(self, wanted: TokenRequest, address: str) -> User:
        name, password = wanted.username, wanted.password
        user = self._users.find(name)
        if user and self._passwords.remembers(name, user.password_hash, password):
            return user
        self._limits.check(name, address)
        if self._passwords.verify(name, user.password_hash if user else None, password) and user:
            self._limits.succeeded(name, address)
            return user
        self._limits.failed(name, address)
        raise Problem(
            401,
            "User name or password is wrong.",
            code="bad-credentials",
            # RFC 9110, 15.5.2 wants a challenge; no registered scheme means "in the body".
            headers={"WWW-Authenticate": 'Password realm="platform"'},
        )


def _address(req: falcon.Request) -> str:
    # The router replaces whatever the client said of itself with the address it saw.
    return str(req.access_route[0]) if req.access_route else ""
