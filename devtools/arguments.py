"""Shared by the parsers of our commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser that prints `epilog` unchanged."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def command(
    commands: Any, name: str, summary: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Adds a command, with its summary in both helps."""
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return made


class Suggestions:
    """Completion choices; other values are accepted, too."""

    def __init__(self, values: Callable[[], Iterable[str]]) -> None:
        self._values = values

    def __contains__(self, _value: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())
