"""PSP Connector settings, read from environment variables."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from services.common.fields import base_url
from services.common.redis_url import RedisSettings
from services.common.settings import HttpSettings, Secret

Seconds = Annotated[float, Field(gt=0, le=3600)]
Days = Annotated[int, Field(ge=1, le=36_500)]


def _header_value(key: Secret) -> Secret:
    """Refuses what an HTTP header cannot carry: each call would fail as if the PSP were down."""
    if not re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()):
        raise ValueError("one line of visible ASCII characters")
    return key


class ConnectorSettings(HttpSettings, RedisSettings):
    """The PSP Connector's settings. `HTTP_PORT` is for health and metrics."""

    psp_url: Annotated[str, AfterValidator(base_url)] = Field(
        description="base URL of the PSP, which must implement Stripe's API"
    )
    psp_api_key: Annotated[Secret, AfterValidator(_header_value)] = Field(
        default=Secret("sk_test_sandbox"), description="API key for the PSP"
    )
    psp_account: str = Field(
        default="",
        description="account at the PSP; payments attempted in another are not repeated",
    )
    psp_timeout_seconds: Seconds = Field(default=5, description="total timeout of a PSP call")
    psp_attempts_max: Annotated[int, Field(ge=1, le=100)] = Field(
        default=8, description="attempts before a transaction fails"
    )
    psp_backoff_seconds: Seconds = Field(
        default=0.5, description="maximum delay before the second attempt; doubles each time"
    )
    psp_backoff_seconds_max: Seconds = Field(default=60, description="upper limit of the delay")
    concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        default=12, description="concurrent PSP calls; at most three quarters for one merchant"
    )
    finished_days: Days = Field(default=90, description="days that a final transaction is kept")
    deadletter_days: Days = Field(default=30, description="days that a dead letter is kept")

    @property
    def psp(self) -> str:
        """Where idempotency keys are known: the account, or else PSP_URL; and the mode.

        Stripe's API keys name the mode (`live`, `test`), not the account. They may be rotated, or
        replaced by restricted ones.
        """
        url = urlsplit(self.psp_url)
        default_port = {"http": 80, "https": 443}[url.scheme]
        host = url.netloc.lower().removesuffix(":").removesuffix(f":{default_port}")
        mode = re.match("[a-z]{2}_(live|test)_", self.psp_api_key.get_secret_value())
        account = self.psp_account or f"{url.scheme}://{host}{url.path}"
        return f"{account} {mode[1] if mode else ''}".strip()
