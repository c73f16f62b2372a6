"""Commands that a message recommends work as they are written."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from services import showlogs
from services.auth_api import users
from services.merchant import cli
from services.preflight import doctor
from services.psp_connector import deadletters
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PARSERS = {
    "merchant": cli.parser(),
    "deadletters": deadletters.parser(),
    "logs": showlogs.parser(),
    "doctor": doctor.parser(),
    "python -m services.auth_api.users": users.parser(),
}
COMMAND = re.compile(rf"`((?:{'|'.join(PARSERS)}|platform|process-compose) (?!--help)[^`]+)`")
EXAMPLES = {"ID": "8b7e8b26-0000-4000-8000-000000000001", "NAME": "alice"}


def texts() -> Iterator[str]:
    """Each text in the code and in our shell scripts; what a message fills in is left out."""
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(getattr(part, "value", "ID")) for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    for folder in ("services", "nix"):
        yield from (path.read_text() for path in (ROOT / folder).rglob("*.sh"))


COMMANDS = sorted({command for text in texts() for command in COMMAND.findall(text)})


def process_compose(words: list[str]) -> bool:
    """Whether it has this command with these options; without running it."""
    done = subprocess.run(
        ["process-compose", *words, "--help"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    command = re.search(r"^ +process-compose ((?:[a-z]+ ?)+)", done.stdout, re.MULTILINE)
    return done.returncode == 0 and command is not None and words[0] == command[1].split()[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recommended_command_works_as_written(command: str) -> None:
    """Its words are those that the command takes."""
    program = next((name for name in PARSERS if command.startswith(name)), "")
    words = [EXAMPLES.get(word, word) for word in shlex.split(command.removeprefix(program))]
    if program:
        PARSERS[program].parse_args(words)
    elif words[1:2] not in ([], ["reset"]):
        if not shutil.which("process-compose"):
            pytest.skip("no process-compose here")
        assert process_compose(words[1:])


def test_messages_recommend_commands() -> None:
    """The search above finds what it looks for."""
    assert {"platform down", "merchant list --as NAME"} <= set(COMMANDS)
