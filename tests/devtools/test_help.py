# ruff: noqa: SLF001 - argparse has no public access to its actions
"""--help is enough to use a command: examples, its environment, its exit codes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from devtools import doctor, showlogs
from devtools.merchant import cli
from devtools.new import cli as new
from services.auth_api import users
from services.psp_connector import deadletters

if TYPE_CHECKING:
    from collections.abc import Iterator


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


MERCHANT = cli.parser()
PARSERS = [
    MERCHANT, *subcommands(MERCHANT), deadletters.parser(), users.parser(), showlogs.parser(),
    doctor.parser(), new.parser(),
]  # fmt: skip


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: str(parser.prog))
def test_help_explains_all(parser: argparse.ArgumentParser) -> None:
    """An example of the command, its variables, its exit codes; each argument and subcommand."""
    text = parser.format_help()
    for heading in ("example", "environment:", "exit codes:\n  0  ", "2  "):
        assert heading in text
    assert parser.prog.split()[-1] in (parser.epilog or "")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert len(action._choices_actions) == len(action.choices)
        else:
            assert action.help
