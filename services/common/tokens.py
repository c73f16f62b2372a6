"""The token the Auth API gives and the Core API takes: a JWT (RFC 7519), HS256, 30 seconds."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import jwt
from cachetools import LRUCache
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from services.common.settings import HttpSettings, Secret

if TYPE_CHECKING:
    from typing import Self

    from services.common.clock import Clock

LIFETIME_SECONDS = 30
SECRET_BYTES_MIN = 32  # RFC 7518, 3.2: as many as HS256's hash has
_ALGORITHM = "HS256"
_ISSUER = "auth-api"
_AUDIENCE = "core-api"
_CLAIMS = ["iss", "aud", "sub", "username", "enabled", "iat", "exp", "jti"]
# A token of ours has some 350 characters; longer ones are not worth decoding.
_TOKEN_CHARACTERS_MAX = 4096
# A merchant sends one token with all requests of half a minute; checking it again costs as much as
# half of what else is done in Python. Some 10 MB when full.
_REMEMBERED_MAX = 10_000

_HOW_TO_MAKE = 'make one with: python -c "import secrets; print(secrets.token_hex(32))"'


class TokenError(Exception):
    """The token is not one to believe; the text says why, and holds nothing of it."""


class TokenSettings(HttpSettings):
    """For a service that makes or checks tokens."""

    jwt_secret: Secret | None = Field(
        default=None, description="what tokens are signed with; at least 32 bytes"
    )
    jwt_secret_previous: Secret | None = Field(
        default=None, description="also accepted, while the secret is being changed"
    )

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.jwt_secret is None:
            raise ValueError(f"JWT_SECRET (or JWT_SECRET_FILE) is not set: {_HOW_TO_MAKE}")
        for name in ("jwt_secret", "jwt_secret_previous"):
            secret: Secret | None = getattr(self, name)
            if secret and len(secret.get_secret_value().encode()) < SECRET_BYTES_MIN:
                raise ValueError(
                    f"{name.upper()}=<secret>: has fewer than {SECRET_BYTES_MIN} bytes; "
                    + _HOW_TO_MAKE
                )
        return self


class Merchant(BaseModel):
    """Who a token speaks for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sub: Annotated[StrictStr, Field(pattern=r"^[0-9]{1,18}$")]
    username: StrictStr
    enabled: StrictBool
    iat: StrictInt
    exp: StrictInt

    @model_validator(mode="after")
    def _short_lived(self) -> Self:
        if self.exp - self.iat > LIFETIME_SECONDS:
            raise ValueError("lives longer than any token of ours")
        return self

    @property
    def user_id(self) -> int:
        """The user's number."""
        return int(self.sub)


class Tokens:
    """Makes and checks tokens."""

    def __init__(self, settings: TokenSettings, clock: Clock = time.time) -> None:
        secrets = (settings.jwt_secret, settings.jwt_secret_previous)
        self._keys = [secret.get_secret_value().encode() for secret in secrets if secret]
        self._clock = clock
        self._lock = threading.Lock()
        self._verified: LRUCache[str, Merchant] = LRUCache(_REMEMBERED_MAX)

    def issue(self, user_id: int, username: str, *, enabled: bool) -> str:
        """A new token, good for 30 seconds from now."""
        now = int(self._clock())
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": str(user_id),
            "username": username,
            "enabled": enabled,
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, self._keys[0], algorithm=_ALGORITHM)

    def verify(self, token: str) -> Merchant:
        """Whom the token speaks for.

        Raises:
            TokenError: when it is expired, not signed by us, for somebody else, or no token.
        """
        if len(token) > _TOKEN_CHARACTERS_MAX:
            raise TokenError("The token is not valid.")
        merchant = self._remembered(token)
        if merchant is None:
            merchant = self._verify(token)
            with self._lock:
                self._verified[token] = merchant
        return merchant

    def _remembered(self, token: str) -> Merchant | None:
        with self._lock:
            merchant = self._verified.get(token)
        # Past its time it is looked at anew, and the reason for the refusal found there.
        return merchant if merchant and merchant.iat <= self._clock() < merchant.exp else None

    def _verify(self, token: str) -> Merchant:
        try:
            return Merchant.model_validate(self._decode(token))
        except jwt.ExpiredSignatureError:
            raise TokenError("The token has expired; get a new one from the Auth API.") from None
        # PyJWT looks at what claims say before it looks at their types: `"exp": []` is a TypeError.
        except Exception:  # noqa: BLE001  whatever it stumbles over, the token is not valid
            raise TokenError("The token is not valid.") from None

    def _decode(self, token: str) -> dict[str, Any]:
        for key in self._keys[:-1]:
            try:
                return self._decode_with(key, token)
            except jwt.InvalidSignatureError:
                continue
        return self._decode_with(self._keys[-1], token)

    def _decode_with(self, key: bytes, token: str) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            issuer=_ISSUER,
            leeway=0,
            options={"require": _CLAIMS},
        )
