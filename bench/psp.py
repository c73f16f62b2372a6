"""The connector's PSP client alone, and the shipped connector with a PSP in its own process.

`python -m bench.psp` runs the latter until a signal.
"""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from bench.results import MeasureError
from services.common import worker
from services.psp_connector import app
from services.psp_connector.psp import PSP, Captured, Charge, Outcome
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import StripePsp


class InstantPsp:
    """Captures everything immediately."""

    def __init__(self, _settings: ConnectorSettings) -> None:
        pass

    def charge(self, charge: Charge) -> Outcome:
        return Captured(f"pi_{charge.transaction_id}")

    def is_available(self) -> bool:
        return True


def client(psp_url: str) -> StripePsp:
    """The connector's client."""
    environ = {"PSP_URL": psp_url, "REDIS_URL": "redis://127.0.0.1:1", "HTTP_PORT": "1"}
    return StripePsp(ConnectorSettings.read(environ))


def charge(psp: PSP) -> None:
    """Makes a new charge; raises MeasureError if it is not captured."""
    outcome = psp.charge(Charge(str(uuid.uuid4()), "bench", 1250, "USD", "pm_card_visa"))
    if not isinstance(outcome, Captured):
        raise MeasureError(f"the PSP client alone: {outcome}")


def rate(psp_url: str, charges: int, threads: int) -> float:
    """Charges per second of the client alone."""
    psp = client(psp_url)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(charge, [psp] * threads))  # connects
        began = time.perf_counter()
        list(pool.map(charge, [psp] * charges))
        return charges / (time.perf_counter() - began)


if __name__ == "__main__":
    vars(app)["StripePsp"] = InstantPsp
    worker.run("psp-connector", ConnectorSettings, app.build)
