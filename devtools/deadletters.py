"""`deadletters`: runs services/psp_connector/deadletters.py on this checkout's stack."""

import os
import sys

from devtools import checkout
from devtools.address import has_own_redis
from devtools.locate import access_fault
from devtools.processes import running_environ
from devtools.supervisor import NO_STACK
from services.common.command import run_main
from services.psp_connector.deadletters import main, parser

__all__ = ["parser"]


def run() -> int:
    """Runs the command on the Redis of the running stack, or on REDIS_URL."""
    parser().parse_args()  # --help needs no stack
    stack = checkout.current(os.environ)
    environ = stack.merged
    running = running_environ(stack.state)
    if running:
        # The shell overrides the running stack's settings; `.env` applies to the next start.
        environ = {**running, **stack.origins["environment"]}
    if has_own_redis(environ):
        # Without a stack, its port may be another user's, who would be sent the password.
        fault = access_fault(stack.state) or ("" if running else NO_STACK)
        if fault:
            sys.stderr.write(f"deadletters: {fault}\n")
            return 1
    defaults = {"REDIS_URL_FILE": str(stack.state / "redis-url")}
    return main(sys.argv[1:], {**defaults, **environ}, sys.stdout, sys.stderr)


if __name__ == "__main__":
    raise SystemExit(run_main(run))
