"""`deadletters`: runs services/psp_connector/deadletters.py on this checkout's stack."""

from __future__ import annotations

import os
import sys

from devtools import envfile
from devtools.address import running_redis, state_folder
from services.common.command import run_main
from services.psp_connector.deadletters import main, parser

__all__ = ["parser"]


def here() -> int:
    """Runs the command on the stack's Redis, or on REDIS_URL."""
    environ = envfile.merged(os.environ)
    state = state_folder(environ)
    own = {"REDIS_URL_FILE": str(state / "redis-url"), **running_redis(state, environ)}
    return main(sys.argv[1:], {**own, **environ}, sys.stdout, sys.stderr)


if __name__ == "__main__":
    raise SystemExit(run_main(here))
