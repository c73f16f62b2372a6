"""`python -m services.core_api`: serves the Core API."""

from __future__ import annotations

import os

from services.common import logs, server
from services.common.settings import read_or_exit
from services.core_api.app import create_app
from services.core_api.settings import CoreSettings


def main() -> None:
    """Reads the settings, then serves until a signal."""
    settings = read_or_exit(CoreSettings, os.environ)
    logs.configure("core-api", settings)
    server.serve(lambda: create_app(settings), settings)


if __name__ == "__main__":
    main()
