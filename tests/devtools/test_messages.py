"""--help is sufficient to use a command, and recommended commands work as written."""

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from devtools import logs
from devtools.doctor import __main__ as doctor
from devtools.merchant import __main__ as merchant
from devtools.new import __main__ as new
from services.auth_api import users
from services.psp_connector import deadletters
from tests.support import ROOT, call

PARSERS = {
    "merchant": merchant.parser(),
    "deadletters": deadletters.parser(),
    "logs": logs.parser(),
    "doctor": doctor.parser(),
    "new": new.parser(),
    "python -m services.auth_api.users": users.parser(),
}
PROGRAM = rf"(?:{'|'.join(PARSERS)}|platform|process-compose)"
QUOTED = re.compile(rf"`({PROGRAM} (?!--help)[^`]+)`")
# In a --help: on a line of its own, what it does after two blanks.
EXAMPLE = re.compile(
    rf"^  (?:\$ )?({PROGRAM}(?: (?! |[<>|&]|--help)\S+)+)(?:  |$| *[<>|&])", re.MULTILINE
)
SAMPLES = {"ID": "8b7e8b26-0000-4000-8000-000000000001", "NAME": "alice"}


@pytest.mark.parametrize("parser", PARSERS.values(), ids=lambda one: one.prog)
def test_help_explains_all(parser: argparse.ArgumentParser) -> None:
    """--help has an example, variables and exit codes."""
    text = parser.format_help()
    for heading in ("example", "environment:", "exit codes:\n  0  ", "2  "):
        assert heading in text


def commands() -> Iterator[str]:
    """The commands that our messages and help texts recommend."""
    for folder in ("services", "devtools"):
        for path in (ROOT / folder).rglob("*.py"):
            text = re.sub(r'"\s*\n\s*f?"', "", path.read_text())  # one string, on two lines
            for found in QUOTED.findall(text) + EXAMPLE.findall(text):
                yield from re.sub(r"\{[^}]*\}", "ID", found).split("; ")
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
        assert process_compose(arguments[1:])


def test_the_check_finds_commands_and_faults() -> None:
    """Control of the two above."""
    assert {"platform down", "merchant smoke", "logs -f"} <= set(COMMANDS)
    wrong = (["lists"], ["process", "lists"], ["list", "--wide"])
    assert not any(process_compose(arguments) for arguments in wrong)
