"""The reader of process-compose's output may end or stall without affecting the stack."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests import support

# Much more than a pipe, a socket and the relay's buffer hold.
CHATTY = "yes | head -n 4000000 && echo done >done"


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
def test_a_reader_gets_whole_lines(tmp_path: Path, *, is_blocking: bool) -> None:
    """In order; if it is too late for the buffer, a line in their place says how many are lost."""
    program = support.script(tmp_path / "process-compose", "seq -f %099.0f 200000")
    reader, writer = os.pipe()
    os.set_blocking(writer, is_blocking)
    command = [*support.LAUNCH, "devtools.process_compose", str(program), "up"]
    with (
        open(reader, "rb") as stream,  # noqa: PTH123
        subprocess.Popen(command, cwd=tmp_path, stdout=writer) as run,
    ):
        os.close(writer)
        assert run.wait(60) == 0
        lines = stream.read().decode().split("\n")[:-1]
    last, lost = 0, 0
    for line in lines:
        if notice := re.fullmatch(r"platform: (\d+) lines were lost", line):
            lost += int(notice[1])
            last += int(notice[1])
        else:
            last += 1
            assert int(line) == last
    assert (last, 0 < lost < 160_000) == (200_000, True)


def test_a_small_output_is_complete(tmp_path: Path) -> None:
    """Even without an end of line, and if the reader comes late."""
    program = support.script(tmp_path / "process-compose", "seq 20000; printf the-end")
    reader, writer = os.pipe()
    command = [*support.LAUNCH, "devtools.process_compose", str(program), "up"]
    subprocess.run(command, cwd=tmp_path, stdout=writer, check=True, timeout=60)
    os.close(writer)
    with open(reader, "rb") as stream:  # noqa: PTH123
        assert stream.read() == b"".join(b"%d\n" % n for n in range(1, 20_001)) + b"the-end"
