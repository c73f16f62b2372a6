"""`python -m devtools.debug SERVICE`: runs a service of the stack in this process, for a debugger.

It has the ports, addresses and settings of the running stack, and one worker process.
`process stop SERVICE` first.
"""

import argparse
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

from devtools import checkout
from devtools.address import host_of, is_free, running_port
from devtools.catalog import PYTHON
from devtools.environment import environment
from devtools.processes import running_environ

_OF_THE_DEBUGGER = ("PYDEVD", "DEBUGPY")


def variables(
    name: str, state: Path, running: Mapping[str, str], editor: Mapping[str, str]
) -> dict[str, str]:
    """The service's environment: that of the running stack, plus the editor's debugger variables.

    A setting of the editor would differ from the other services': another PSP_ACCOUNT or JWT_SECRET
    fails payments, and gunicorn itself reads some variables, such as SCRIPT_NAME.
    """
    settings = {**running, "PLATFORM_STATE": str(state)}
    service = environment(name, running_port(settings), state, settings)
    kept = {name: value for name, value in editor.items() if name.startswith(_OF_THE_DEBUGGER)}
    return {"WORKERS": "1", **service, **kept}


def main() -> None:
    """Runs the service until a signal."""
    command_line = argparse.ArgumentParser(
        prog="python -m devtools.debug", description="Runs a service, for a debugger."
    )
    command_line.add_argument("service", choices=PYTHON)
    name = command_line.parse_args().service
    state = checkout.current(os.environ).state
    running = running_environ(state)
    if not running:
        sys.exit("no stack of this checkout is running; start it first: platform up -D")
    environ = variables(name, state, running, os.environ)
    if not is_free(port := int(environ["HTTP_PORT"]), host_of(name, environ)):
        sys.exit(f"port {port} ({name}) is in use; stop it first: platform process stop {name}")
    os.environ.clear()
    os.environ.update(environ)
    runpy.run_module(f"services.{PYTHON[name].folder}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
