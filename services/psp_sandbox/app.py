"""The PSP sandbox: a fake of the part of Stripe's API that the platform uses."""

import sqlite3
from typing import Any

import falcon
import structlog

from services.common.settings import SettingsError
from services.common.web import App, make_app
from services.psp_sandbox import errors, resources
from services.psp_sandbox.errors import StripeError
from services.psp_sandbox.faults import ControlGuard, FaultInjector, StripeMiddleware
from services.psp_sandbox.settings import SandboxSettings
from services.psp_sandbox.store import Store
from services.psp_sandbox.waiting import Waiting

_log = structlog.get_logger()


def create_app(
    settings: SandboxSettings, *, store: Store | None = None, waiting: Waiting | None = None
) -> App:
    """Creates the app; raises SettingsError if the database cannot be used.

    It is only checked here: the first request opens it.
    """
    store = store or _usable(Store(settings.sandbox_database), settings)
    waiting = waiting or Waiting()
    injector = FaultInjector()
    app = make_app(
        {
            "/v1/payment_intents": resources.PaymentIntents(store, waiting, injector),
            "/_sandbox/payment_intents": resources.RecordedPayments(store),
            "/_sandbox/faults": resources.FaultsResource(injector),
        },
        settings,
        checks={"database": store.check},
    )
    app.add_middleware(StripeMiddleware(injector, waiting))
    app.add_middleware(ControlGuard(settings.sandbox_token))
    app.set_error_serializer(errors.serialize)
    app.add_error_handler(sqlite3.Error, _database_failed)
    return app


def _usable(store: Store, settings: SandboxSettings) -> Store:
    try:
        store.check()
    except sqlite3.Error as error:
        name = repr(str(settings.sandbox_database))
        raise SettingsError([f"SANDBOX_DATABASE={name}: {error}"]) from None
    finally:
        store.close()
    return store


def _database_failed(
    _req: falcon.Request, _resp: falcon.Response, error: sqlite3.Error, _params: dict[str, Any]
) -> None:
    """A full disk or a removed file is a 503: the caller may retry."""
    _log.error("database failed", reason=str(error))
    raise StripeError(503, "The sandbox's database is unavailable; nothing was charged. Try again.")
