"""Output for a terminal: escaped, coloured, in columns."""

from collections.abc import Collection, Mapping, Sequence
from typing import TextIO

from services.common.command import has_colors, printable

_GREEN, _RED, _YELLOW = 32, 31, 33
_COLORS = {
    **dict.fromkeys(("ok", "pass", "captured"), _GREEN),
    **dict.fromkeys(("NOT ok", "FAIL", "X", "declined", "failed"), _RED),
    **dict.fromkeys(("!", "queued", "processing"), _YELLOW),
}


class Output:
    """Writes lines, flushing each."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._has_colors = has_colors(stream, environ)

    def say(self, text: str, status: str = "") -> None:
        """Prints a line with `status` in its colour, and control characters escaped."""
        line = printable(text)
        if self._has_colors and status in _COLORS:
            line = line.replace(status, f"\x1b[{_COLORS[status]}m{status}\x1b[0m", 1)
        print(line, file=self._stream, flush=True)


def columns(
    rows: Sequence[Sequence[str]], *, right: Collection[int] = (), characters_max: int = 200
) -> list[str]:
    """The rows with aligned cells; those of the columns `right` align right.

    A cell of more than `characters_max` shifts only its own line.
    """
    widths = [
        max((len(cell) for cell in column if len(cell) <= characters_max), default=0)
        for column in zip(*rows, strict=True)
    ]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
