# ruff: noqa: SLF001 - argparse has no public access to its actions
"""--help is sufficient to use a command, and recommended commands work as written."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import shutil
from collections.abc import Iterator

import pytest

from devtools import doctor, showlogs
from devtools.merchant import cli
from devtools.new import cli as new
from services.auth_api import users
from services.psp_connector import deadletters
from tests.support import ROOT, call

PARSERS = {
    "merchant": cli.parser(),
    "deadletters": deadletters.parser(),
    "logs": showlogs.parser(),
    "doctor": doctor.parser(),
    "python -m services.auth_api.users": users.parser(),
}
PROGRAM = rf"(?:{'|'.join(PARSERS)}|platform|process-compose)"
QUOTED = re.compile(rf"`({PROGRAM} (?!--help)[^`]+)`")
# In a --help: on a line of its own, what it does after two blanks.
EXAMPLE = re.compile(
    rf"^  (?:\$ )?({PROGRAM}(?: (?! |[<>|]|--help)\S+)+)(?:  |$| *[<>|])", re.MULTILINE
)
SAMPLES = {"ID": "8b7e8b26-0000-4000-8000-000000000001", "NAME": "alice"}


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


@pytest.mark.parametrize(
    "parser",
    [*PARSERS.values(), new.parser(), *subcommands(PARSERS["merchant"])],
    ids=lambda parser: str(parser.prog),
)
def test_help_explains_all(parser: argparse.ArgumentParser) -> None:
    """--help has an example, variables, exit codes, and every argument and subcommand."""
    text = parser.format_help()
    for heading in ("example", "environment:", "exit codes:\n  0  ", "2  "):
        assert heading in text
    assert parser.prog.split()[-1] in (parser.epilog or "")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert len(action._choices_actions) == len(action.choices)
        else:
            assert action.help


def texts(tree: ast.AST) -> Iterator[str]:
    """Each string in the code, with ID in place of a value."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(p.value) if isinstance(p, ast.Constant) else "ID" for p in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        else:
            yield from texts(node)


def commands() -> Iterator[str]:
    """The commands that our messages and help texts recommend."""
    for folder in ("services", "devtools"):
        for path in (ROOT / folder).rglob("*.py"):
            for text in texts(ast.parse(path.read_text())):
                for found in QUOTED.findall(text) + EXAMPLE.findall(text):
                    yield from found.split("; ")
    for path in (ROOT / "nix").rglob("*.sh"):
        yield from QUOTED.findall(path.read_text().replace("\\`", "`"))


COMMANDS = sorted(set(commands()))


def process_compose(arguments: list[str]) -> bool:
    """Whether process-compose accepts this command and its options; does not run it."""
    done = call(["process-compose", *arguments, "--help"])
    usage = done.stdout.partition("Usage:\n")[2].partition("\n")[0].split()
    return done.returncode == 0 and usage[1] == arguments[0] and "[command]" not in usage


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recommended_command_works_as_written(command: str) -> None:
    """The command accepts its arguments."""
    program = next((name for name in PARSERS if command.startswith(name)), "")
    arguments = [SAMPLES.get(word, word) for word in shlex.split(command.removeprefix(program))]
    if program:
        PARSERS[program].parse_args(arguments)
    elif arguments[1:2] not in ([], ["reset"], ["status"]):
        if not shutil.which("process-compose"):
            pytest.skip("no process-compose here")
        assert process_compose(arguments[1:])


@pytest.mark.skipif(not shutil.which("process-compose"), reason="no process-compose here")
def test_the_check_finds_what_does_not_exist() -> None:
    """It finds an unknown command, subcommand or option of process-compose."""
    wrong = (["lists"], ["process", "lists"], ["list", "--wide"])
    assert not any(process_compose(arguments) for arguments in wrong)


def test_messages_recommend_commands() -> None:
    """Control: the search above finds commands."""
    assert {"platform down", "merchant list --as NAME", "logs -f"} <= set(COMMANDS)
