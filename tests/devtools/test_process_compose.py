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


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_slow_reader_gets_whole_lines(tmp_path: Path, *, is_blocking: bool) -> None:
    """All of them, in order, as long as they fit into the buffer."""
    program = support.script(tmp_path / "process-compose", "seq -f %0999.0f 3000")
    reader, writer = os.pipe()
    os.set_blocking(writer, is_blocking)
    command = [*support.LAUNCH, "devtools.process_compose", str(program), "up"]
    subprocess.run(command, cwd=tmp_path, stdout=writer, check=True, timeout=60)
    os.close(writer)
    with open(reader, "rb") as stream:  # noqa: PTH123
        assert [int(line) for line in stream] == [*range(1, 3001)]
