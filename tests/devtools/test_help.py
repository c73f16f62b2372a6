# ruff: noqa: SLF001 - argparse can be asked in no other way what it was told
"""--help is enough to use a command: examples, its environment, its exit codes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from devtools import doctor, showlogs
from devtools.merchant import cli
from services.auth_api import users
from services.psp_connector import deadletters

if TYPE_CHECKING:
    from collections.abc import Iterator


def commands(words: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser of each command."""
    for action in words._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


MERCHANT = cli.parser()
PARSERS = [
    MERCHANT, *commands(MERCHANT), deadletters.parser(), users.parser(), showlogs.parser(),
    doctor.parser(),
]  # fmt: skip


@pytest.mark.parametrize("words", PARSERS, ids=lambda words: str(words.prog))
def test_help_tells_how(words: argparse.ArgumentParser) -> None:
    told = words.format_help()
    for heading in ("example", "environment:", "exit codes:\n  0  ", "2  "):
        assert heading in told
    assert words.prog.split()[-1] in (words.epilog or "")


@pytest.mark.parametrize("words", PARSERS, ids=lambda words: str(words.prog))
def test_every_word_is_explained(words: argparse.ArgumentParser) -> None:
    """Also each command in the list of them."""
    for action in words._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction)
    for action in words._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert len(action._choices_actions) == len(action.choices)
