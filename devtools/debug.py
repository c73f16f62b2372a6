"""`python -m devtools.debug SERVICE`: runs a service of the stack in this process, for a debugger.

It has the ports, addresses and settings of the stack's last start, the checkout's `.env` included,
and one worker process. `process stop SERVICE` first.
"""

import argparse
import os
import runpy

from devtools import checkout
from devtools.address import running_port
from devtools.catalog import SERVICES
from devtools.environment import environment, sandbox_files
from devtools.settings import SETTINGS


def variables(name: str, here: checkout.Checkout) -> dict[str, str]:
    """The service's environment."""
    # Without the same PSP_ACCOUNT it would take open payments for another PSP's.
    found = environment(name, running_port(here.merged), here.state, here.merged)
    return {"WORKERS": "1", **found, **sandbox_files(here.state)}


def main() -> None:
    """Runs the service until a signal."""
    command_line = argparse.ArgumentParser(
        prog="python -m devtools.debug", description="Runs a service, for a debugger."
    )
    command_line.add_argument("service", choices=SETTINGS)
    name = command_line.parse_args().service
    os.environ.update(variables(name, checkout.current(os.environ)))
    runpy.run_module(f"services.{SERVICES[name].folder}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
