"""What the PSP Connector is told by its environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from services.common.redis_url import RedisSettings
from services.common.settings import HttpSettings, Secret, print_settings


def _http_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("an http:// or https:// address, such as https://api.stripe.com")
    return url.rstrip("/")


Seconds = Annotated[float, Field(gt=0, le=3600)]
Days = Annotated[int, Field(ge=1, le=36_500)]


class ConnectorSettings(HttpSettings, RedisSettings):
    """The PSP Connector's settings. `HTTP_PORT` is for health and metrics."""

    psp_url: Annotated[str, AfterValidator(_http_url)] = Field(
        description="the Payment Service Provider, which speaks Stripe's API"
    )
    psp_api_key: Secret = Field(default=Secret("sk_test_sandbox"), description="the key for it")
    psp_timeout_seconds: Seconds = Field(default=5, description="for one call at the PSP")
    psp_attempts_max: Annotated[int, Field(ge=1, le=100)] = Field(
        default=8, description="calls for one transaction, then it has failed"
    )
    psp_backoff_seconds: Seconds = Field(
        default=0.5, description="the longest wait before the second attempt; doubles each time"
    )
    psp_backoff_seconds_max: Seconds = Field(default=60, description="where the doubling ends")
    concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        default=12, description="calls at the PSP at a time, of one merchant three quarters"
    )
    finished_days: Days = Field(default=90, description="a finished transaction is kept so long")
    deadletter_days: Days = Field(default=30, description="a dead letter is kept so long")


if __name__ == "__main__":
    print_settings(ConnectorSettings)
