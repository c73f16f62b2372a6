"""`python -m services.psp_sandbox`: serves the PSP sandbox."""

from __future__ import annotations

import sqlite3

from services.common import server
from services.common.settings import SettingsError
from services.common.web import App
from services.psp_sandbox.app import create_app
from services.psp_sandbox.settings import SandboxSettings
from services.psp_sandbox.store import Store
from services.psp_sandbox.waiting import THREADS


def checked_app(settings: SandboxSettings) -> App:
    """The app; raises SettingsError if the database cannot be used."""
    store = Store(settings.sandbox_database)
    try:
        store.check()
    except sqlite3.Error as error:
        name = repr(str(settings.sandbox_database))
        raise SettingsError([f"SANDBOX_DATABASE={name}: {error}"]) from None
    finally:
        store.close()
    return create_app(settings)


if __name__ == "__main__":
    server.run("psp-sandbox", SandboxSettings, checked_app, threads=THREADS)
