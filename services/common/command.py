"""Exit codes and stream set-up shared by the command-line programs."""

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells
EXIT_NO_READER = 141  # 128 + SIGPIPE

# Red, green, yellow, reset: printed by our commands, and harmless in foreign data.
_COLOR = re.compile(r"(\x1b\[(?:3[123]|0)m)")


def printable(text: str, keep: str = "") -> str:
    """Escapes what could steer a terminal or fake a line, except the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def has_colors(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to print colours: at a terminal, unless NO_COLOR or FORCE_COLOR decides."""
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (
        stream.isatty() and environ.get("TERM", "dumb") != "dumb"
    )


def run_main(main: Callable[[], int]) -> int:
    """Calls `main`; returns its exit code, 130 on Ctrl-C or 141 on a closed pipe.

    Escapes control characters in its output, except colours: it may contain foreign data.
    """
    for stream in (sys.stdout, sys.stderr):
        # Escape characters that the terminal cannot encode.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        stream.write = _escaping(stream.write)  # type: ignore[method-assign]
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout again at exit, which would raise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NO_READER


def _escaping(write: Callable[[str], int]) -> Callable[[str], int]:
    def escaped(text: str) -> str:
        parts = _COLOR.split(text) if "\x1b" in text else [text]
        return "".join(part if _COLOR.match(part) else printable(part, "\n\t") for part in parts)

    return lambda text: write(escaped(text))
