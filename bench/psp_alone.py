"""`python -m bench.psp_alone CHARGES THREADS`: the connector's PSP client alone.

Prints charges per second. PSP_URL names the PSP.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from services.psp_connector.psp import Captured, Charge
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import StripePsp


def charge() -> Charge:
    """A new charge."""
    return Charge(str(uuid.uuid4()), "bench", 1250, "USD", "pm_card_visa")


def client(psp_url: str) -> StripePsp:
    """The connector's client."""
    environ = {"PSP_URL": psp_url, "REDIS_URL": "redis://127.0.0.1:1", "HTTP_PORT": "1"}
    return StripePsp(ConnectorSettings.read(environ))


def rate(psp: StripePsp, charges: int, threads: int) -> float:
    """Charges per second."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(psp.charge, [charge() for _ in range(threads)]))  # connects
        began = time.perf_counter()
        outcomes = list(pool.map(psp.charge, [charge() for _ in range(charges)]))
        seconds = time.perf_counter() - began
    wrong = [outcome for outcome in outcomes if not isinstance(outcome, Captured)]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {charges} charges were not captured: {wrong[0]}")
    return charges / seconds


if __name__ == "__main__":
    result = rate(client(os.environ["PSP_URL"]), int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write(f"{result!r}\n")
