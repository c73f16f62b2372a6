"""`merchant smoke`: runs the checks of the contract against a running platform."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from devtools.merchant.client import Client, Deadline
from devtools.merchant.contract import CHECKS, Check, CheckFailedError, Merchants
from devtools.merchant.errors import PlatformError, UnreachableError
from devtools.merchant.report import Screen, duration

_NAME_WIDTH = 64


def run(url: str, password: str, environ: Mapping[str, str], *, seconds_max: float) -> int:
    """Runs all checks, printing a line each; returns 0 if all pass, else 1."""
    screen = Screen(sys.stdout, environ)
    passed, stop = 0, ""
    with Client(url, Deadline(seconds_max)) as client:
        merchants = Merchants(client, password, environ, screen)
        for name, check in CHECKS.items():
            if not stop and not client.deadline.seconds_left():
                stop = f"not tried: the {seconds_max:g} s for all checks are over"
            if stop:
                screen.say(f"NOT ok  {name:<{_NAME_WIDTH}} {stop}", "NOT ok")
                continue
            failure = _try(check, name, merchants)
            passed += failure is None
            if failure and failure.is_last:
                stop = "not tried"
    screen.say(f"smoke: {passed} passed, {len(CHECKS) - passed} failed")
    return 0 if passed == len(CHECKS) else 1


def _try(check: Check, name: str, merchants: Merchants) -> CheckFailedError | None:
    started, failure = time.perf_counter(), None
    try:
        check(merchants)
    except CheckFailedError as error:
        failure = error
    except PlatformError as error:
        is_last = name == next(iter(CHECKS)) and isinstance(error, UnreachableError)
        failure = CheckFailedError("a response", str(error), error.hint if is_last else "")
    ms = (time.perf_counter() - started) * 1000
    status = "NOT ok" if failure else "ok"
    merchants.screen.say(f"{status:<7} {name:<{_NAME_WIDTH}} {duration(ms):>8}", status)
    for line in failure.lines if failure else ():
        merchants.screen.say(f"          {line}")
    return failure
