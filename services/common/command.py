"""What every command-line program does around its `main`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as the shell has it
EXIT_NO_READER = 141  # 128 + SIGPIPE


def run_main(main: Callable[[], int]) -> int:
    """Calls `main`; returns its exit code, or one for Ctrl-C or a closed pipe (`... | head -1`)."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its escape, not a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NO_READER
