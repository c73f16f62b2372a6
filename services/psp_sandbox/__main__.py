"""`python -m services.psp_sandbox`: serves the PSP sandbox."""

from __future__ import annotations

import os
import sqlite3

import structlog

from services.common import logs, server
from services.common.settings import exit_for, read_or_exit
from services.psp_sandbox.app import create_app
from services.psp_sandbox.settings import SandboxSettings
from services.psp_sandbox.store import Store
from services.psp_sandbox.waiting import THREADS


def main() -> None:
    """Reads the settings, then serves until a signal."""
    settings = read_or_exit(SandboxSettings, os.environ)
    logs.configure("psp-sandbox", settings)
    _check_database(settings)
    if os.environ.get("WORKERS", "1") not in ("", "1"):
        structlog.get_logger().warning("WORKERS is ignored: the sandbox is always one process")
    server.serve(lambda: create_app(settings), settings, threads=THREADS)


def _check_database(settings: SandboxSettings) -> None:
    store = Store(settings.sandbox_database)
    try:
        store.check()
    except sqlite3.Error as error:
        exit_for([f"SANDBOX_DATABASE={str(settings.sandbox_database)!r}: {error}"])
    finally:
        store.close()


if __name__ == "__main__":
    main()
