"""Core API settings, read from environment variables."""

from typing import Annotated

from pydantic import Field

from services.common.redis_url import RedisSettings
from services.common.tokens import TokenSettings


class CoreSettings(TokenSettings, RedisSettings):
    """The Core API's settings."""

    queue_limit: Annotated[int, Field(ge=1, le=10**9)] = Field(
        default=100_000, description="open transactions; more are refused with 503"
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        default=2, description="number of worker processes"
    )
