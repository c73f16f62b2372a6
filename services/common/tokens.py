"""Access tokens: JWTs (RFC 7519), HS256, valid for 30 seconds."""

import re
import threading
import time
import uuid
from typing import Annotated, Any, Self

import jwt
from cachetools import LRUCache
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from services.common.clock import Clock
from services.common.settings import Secret, ServerSettings

LIFETIME_SECONDS = 30
SECRET_BYTES_MIN = 32  # RFC 7518, 3.2: at least the hash size of HS256
_ALGORITHM = "HS256"
_ISSUER = "auth-api"
_AUDIENCE = "core-api"
_CLAIMS = ["iss", "aud", "sub", "username", "enabled", "iat", "exp", "jti"]
# Valid tokens have about 350 characters.
_TOKEN_CHARACTERS_MAX = 4096
# RFC 7515, 7.1. PyJWT would skip other characters, and ignore the last two bits of a signature, so
# that one token had many spellings.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
# A merchant reuses a token for 30 seconds; verifying it every time would add half as much Python
# time to each request. Some 10 MB when full.
_CACHED_MAX = 10_000

_HOW_TO_MAKE = 'make one with: python -c "import secrets; print(secrets.token_hex(32))"'


def _fault(secret: str) -> str:
    if re.search("[\ud800-\udfff]", secret):
        return "is not UTF-8 text"
    if len(secret.encode()) < SECRET_BYTES_MIN:
        return f"has fewer than {SECRET_BYTES_MIN} bytes"
    try:
        jwt.encode({}, secret, algorithm=_ALGORITHM)
    except jwt.InvalidKeyError:
        return "is a key or certificate in PEM or SSH format, which HS256 cannot use"
    return ""


class TokenError(Exception):
    """Invalid token. The message never contains the token."""


class TokenSettings(ServerSettings):
    """Settings of a service that issues or verifies tokens."""

    jwt_secret: Secret | None = Field(
        default=None, validate_default=True, description="key that signs tokens; at least 32 bytes"
    )
    jwt_secret_previous: Secret | None = Field(
        default=None, description="previous key, still accepted during rotation"
    )

    @field_validator("jwt_secret", "jwt_secret_previous")
    @classmethod
    def _long_enough(cls, secret: Secret | None, info: ValidationInfo) -> Secret | None:
        variable = str(info.field_name).upper()
        if secret is None:
            raise ValueError(f"{variable} (or {variable}_FILE) is not set: {_HOW_TO_MAKE}")
        if fault := _fault(secret.get_secret_value()):
            raise ValueError(f"{variable}=<secret>: {fault}; {_HOW_TO_MAKE}")
        return secret


class Merchant(BaseModel):
    """The claims of a verified token."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sub: Annotated[StrictStr, Field(pattern=r"^[0-9]{1,15}$")]
    username: StrictStr
    enabled: StrictBool
    iat: StrictInt
    exp: StrictInt

    @model_validator(mode="after")
    def _short_lived(self) -> Self:
        if self.exp - self.iat > LIFETIME_SECONDS:
            raise ValueError("lifetime is too long")
        return self

    @property
    def user_id(self) -> int:
        return int(self.sub)


class Tokens:
    """Issues and verifies tokens."""

    def __init__(self, settings: TokenSettings, clock: Clock = time.time) -> None:
        secrets = (settings.jwt_secret, settings.jwt_secret_previous)
        self._keys = [secret.get_secret_value().encode() for secret in secrets if secret]
        self._clock = clock
        self._lock = threading.Lock()
        self._verified: LRUCache[str, Merchant] = LRUCache(_CACHED_MAX)

    def issue(self, user_id: int, username: str, *, enabled: bool) -> str:
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
        """Returns the claims of a token; raises TokenError if it is not valid."""
        merchant = self._cached(token)
        if merchant is None:
            merchant = self._verify(token)
            with self._lock:
                self._verified[token] = merchant
        return merchant

    def _cached(self, token: str) -> Merchant | None:
        with self._lock:
            merchant = self._verified.get(token)
        # Outside its lifetime it is verified again, which raises with the reason.
        return merchant if merchant and merchant.iat <= self._clock() < merchant.exp else None

    def _verify(self, token: str) -> Merchant:
        if len(token) > _TOKEN_CHARACTERS_MAX or not _COMPACT.fullmatch(token):
            raise TokenError("The token is not valid.")
        try:
            return Merchant.model_validate(self._decode(token))
        except jwt.ExpiredSignatureError:
            raise TokenError("The token has expired; get a new one from the Auth API.") from None
        # PyJWT uses claims before it checks their types: `"exp": []` raises a TypeError.
        except Exception:  # noqa: BLE001  any failure means the token is not valid
            raise TokenError("The token is not valid.") from None

    def _decode(self, token: str) -> dict[str, Any]:
        failure: Exception | None = None
        for key in self._keys:
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=[_ALGORITHM],
                    audience=_AUDIENCE,
                    issuer=_ISSUER,
                    options={"require": _CLAIMS},
                )
            except jwt.InvalidSignatureError as error:
                failure = error
        raise failure or jwt.InvalidKeyError
