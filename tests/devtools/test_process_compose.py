"""The reader of process-compose's output may end or stall without affecting the stack."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests import support

# Much more than a pipe or a socket holds.
CHATTY = "head -c 2000000 /dev/zero && echo the end && echo done >done"


@pytest.mark.parametrize("command", ["", "up", "run", "--tui=false"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "not-read"])
def test_no_reader_holds_up_process_compose(
    tmp_path: Path, command: str, kind: str, *, is_closed: bool
) -> None:
    """Whatever starts the stack, process-compose neither waits for a reader nor ends with it."""
    program = support.script(tmp_path / "process-compose", CHATTY)
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (one.detach() for one in socket.socketpair())
    if is_closed:
        os.close(reader)
    ended = subprocess.run(
        [*support.LAUNCH, "devtools.process_compose", str(program), *command.split()],
        cwd=tmp_path, stdout=writer, check=False, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert (ended.returncode, (tmp_path / "done").is_file()) == (0, True)
    if not is_closed:
        os.close(reader)


def test_what_is_read_is_complete(tmp_path: Path) -> None:
    """A pipe's reader gets all output."""
    program = support.script(tmp_path / "process-compose", CHATTY)
    command = [*support.LAUNCH, "devtools.process_compose", str(program), "up"]
    output = subprocess.check_output(command, cwd=tmp_path, timeout=60)
    assert output == bytes(2_000_000) + b"the end\n"
