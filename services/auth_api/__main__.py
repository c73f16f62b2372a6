"""`python -m services.auth_api`: serves the Auth API."""

from __future__ import annotations

import os

from services.auth_api.app import create_app
from services.auth_api.settings import AuthSettings
from services.auth_api.userfile import UsersError, load
from services.common import logs, server
from services.common.settings import exit_for, read_or_exit


def main() -> None:
    """Reads the settings, then serves until a signal."""
    settings = read_or_exit(AuthSettings, os.environ)
    logs.configure("auth-api", settings)
    try:
        load(settings.users_file)
    except UsersError as error:
        exit_for([f"USERS_FILE: {error}"])
    server.serve(lambda: create_app(settings), settings)


if __name__ == "__main__":
    main()
