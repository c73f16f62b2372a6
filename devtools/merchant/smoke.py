"""`merchant smoke`: runs the checks of the contract against a running platform."""

import sys
import time
from collections.abc import Mapping

from devtools.merchant.client import Client, Deadline
from devtools.merchant.contract import CHECKS, Check, CheckFailedError, Merchants
from devtools.merchant.errors import PlatformError, UnreachableError
from devtools.merchant.report import Screen, duration

_NAME_WIDTH = 64


def run(url: str, password: str, environ: Mapping[str, str], *, seconds_max: float) -> int:
    """Runs all checks, printing a line each; returns 0 if all pass, else 1.

    Raises:
        UnreachableError: the router does not respond; the remaining checks are not tried.
    """
    screen = Screen(sys.stdout, environ)
    with Client(url, Deadline(seconds_max)) as client:
        merchants = Merchants(client, password, environ, screen)
        passed = sum([_passes(check, name, merchants) for name, check in CHECKS.items()])
    screen.say(f"smoke: {passed} passed, {len(CHECKS) - passed} failed")
    return 0 if passed == len(CHECKS) else 1


def _passes(check: Check, name: str, merchants: Merchants) -> bool:
    started, lines = time.perf_counter(), []
    try:
        check(merchants)
    except CheckFailedError as error:
        lines = error.lines
    except UnreachableError:
        merchants.screen.say(f"NOT ok  {name}", "NOT ok")
        raise
    except PlatformError as error:
        lines = CheckFailedError("a response", str(error)).lines
    ms = (time.perf_counter() - started) * 1000
    status = "NOT ok" if lines else "ok"
    merchants.screen.say(f"{status:<7} {name:<{_NAME_WIDTH}} {duration(ms):>8}", status)
    for line in lines:
        merchants.screen.say(f"          {line}")
    return not lines
