"""What the Auth API is told by its environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, FilePath

from services.settings import print_settings
from services.tokens import TokenSettings

SHIPPED_USERS = Path(__file__).with_name("users.json")


class AuthSettings(TokenSettings):
    """The Auth API's settings."""

    users_file: FilePath = Field(default=SHIPPED_USERS, description="the merchants (JSON)")


if __name__ == "__main__":
    print_settings(AuthSettings)
