"""What the PSP sandbox is told by its environment."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  pydantic reads the annotation when this runs
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from services.common.settings import HttpSettings, Secret, print_settings


def _in_a_folder(path: Path) -> Path:
    if path.is_dir():
        raise ValueError("a file, and this is a folder")
    if not path.absolute().parent.is_dir():
        raise ValueError("a file in a folder that exists")
    return path


class SandboxSettings(HttpSettings):
    """Settings of the PSP sandbox."""

    sandbox_database: Annotated[Path, AfterValidator(_in_a_folder)] | None = Field(
        default=None,
        description="the SQLite file that keeps payments and keys; when unset they are in memory",
    )
    sandbox_token: Secret | None = Field(
        default=None, description="what requests to /_sandbox have to bear; when unset, nothing"
    )
    # One, whatever the rest of the stack runs with: which keys are in use, which faults are on and
    # how many requests are held is known to one process only. Threads do the rest.
    workers: Annotated[int, BeforeValidator(lambda _given: 1)] = Field(
        default=1, description="always 1 here"
    )


if __name__ == "__main__":
    print_settings(SandboxSettings)
