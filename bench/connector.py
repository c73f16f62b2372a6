"""`python -m bench.connector instant|sandbox`: the shipped connector with a timed PSP.

`instant` captures everything immediately, in this process; `sandbox` is the connector's own PSP.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import services.psp_connector.__main__ as entry
from bench.started import Started
from services.psp_connector.psp import Captured, Charge, Outcome
from services.psp_connector.stripe_psp import StripePsp

if TYPE_CHECKING:
    from services.psp_connector.settings import ConnectorSettings

_started = Started()


class InstantPsp:
    """Captures everything immediately."""

    def __init__(self, _settings: ConnectorSettings) -> None:
        pass

    def charge(self, charge: Charge) -> Outcome:
        _started()
        return Captured(f"pi_{charge.transaction_id}")

    def is_available(self) -> bool:
        return True


class TimedStripePsp(StripePsp):
    """The connector's PSP client, timed."""

    def charge(self, charge: Charge) -> Outcome:
        _started()
        return super().charge(charge)


def main(psp: str) -> None:
    """Runs until a signal."""
    vars(entry)["StripePsp"] = {"instant": InstantPsp, "sandbox": TimedStripePsp}[psp]
    entry.main()


if __name__ == "__main__":
    main(sys.argv[1])
