"""PSP sandbox settings, read from environment variables."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from services.common.settings import HttpSettings, Secret


def _in_a_folder(path: Path) -> Path:
    if path.is_dir():
        raise ValueError("a file, not a folder")
    if not path.absolute().parent.is_dir():
        raise ValueError("a file in an existing folder")
    return path


class SandboxSettings(HttpSettings):
    """The PSP sandbox's settings.

    One process, without WORKERS: keys in use, faults and waiting requests are in-process state.
    """

    sandbox_database: Annotated[Path, AfterValidator(_in_a_folder)] | None = Field(
        default=None,
        description="SQLite file of payments and keys; in memory if unset",
    )
    sandbox_token: Secret | None = Field(
        default=None, description="token required for /_sandbox; none if unset"
    )
