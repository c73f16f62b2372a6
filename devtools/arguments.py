"""Shared by the parsers of our commands."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class _Parser(argparse.ArgumentParser):
    """Prints descriptions unchanged; its commands are of the same class."""

    def __init__(self, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=formatter, allow_abbrev=False, **options)


def parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser that prints `epilog` unchanged."""
    return _Parser(prog=prog, description=description, epilog=epilog)


def command(
    commands: Any, name: str, summary: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Adds a command, with its summary in both helps."""
    description = f"{summary[0].upper()}{summary[1:]}."
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, epilog=epilog
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
