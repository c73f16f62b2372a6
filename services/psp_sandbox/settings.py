"""PSP sandbox settings, read from environment variables."""

from pathlib import Path

from pydantic import Field

from services.common.settings import HttpSettings, Secret


class SandboxSettings(HttpSettings):
    """The PSP sandbox's settings. No WORKERS: keys in use, faults and waits are of one process."""

    sandbox_database: Path | None = Field(
        default=None, description="SQLite file of payments and keys; in memory if unset"
    )
    sandbox_token: Secret | None = Field(
        default=None, description="token required for /_sandbox; none if unset"
    )
