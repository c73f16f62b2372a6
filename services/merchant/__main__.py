"""`python -m services.merchant`: the command-line client."""

from __future__ import annotations

import os
import sys

from services import dotenv
from services.merchant.cli import main


def _run() -> int:
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its escape, not a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = main(sys.argv[1:], dotenv.merged(os.environ), sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # `merchant list | head -1`: nobody reads any more, and Python must not say so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, as the shell has it
    return code


if __name__ == "__main__":
    sys.exit(_run())
