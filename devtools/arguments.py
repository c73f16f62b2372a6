"""What the parsers of our commands have in common."""

import argparse
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Parser(argparse.ArgumentParser):
    """A parser that keeps the line breaks of its help and refuses abbreviated options."""

    def __init__(self, prog: str, description: str, epilog: str | None, **options: Any) -> None:
        options |= {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(prog, description=description, epilog=epilog, **options)


def count(text: str) -> int:
    """Parses an argument that is a number above 0."""
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text, re.ASCII):
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return int(text)


def seconds(text: str) -> float:
    """Parses an argument that is a time above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def command(
    commands: Any, name: str, summary: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Adds a command; the summary appears in its own help and in that of its parent."""
    description = f"{summary[0].upper()}{summary[1:]}."
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, epilog=epilog
    )
    return parser


class Suggestions:
    """Completion choices; other values are accepted, too."""

    def __init__(self, values: Callable[[], Iterable[str]]) -> None:
        self._values = values

    def __contains__(self, _value: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())
