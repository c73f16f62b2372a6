"""`run_main`, which wraps every command-line program."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.parametrize("main", ["print('text')", "ArgumentParser().parse_args(['--help'])"])
def test_a_reader_that_leaves_ends_it_quietly(main: str) -> None:
    """`... | head -0` gives the exit code of SIGPIPE and no traceback."""
    code = f"""
import sys
from argparse import ArgumentParser
from services.common.command import run_main
sys.exit(run_main(lambda: {main}))
"""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert (run.returncode, run.stderr) == (141, b"")


def test_foreign_data_cannot_steer_the_terminal() -> None:
    """Escapes, C1 and bidi controls are escaped on both streams; lines and colours stay."""
    program = r"""
import sys
from services.common.command import run_main
text = "\x1b[32mok\x1b[0m \x1b[2J\x9b1m\u202e\r\x00 \u00fc\n\tend\n"
def main():
    print(text, end="", flush=True)
    sys.stdout.writelines([text])
    sys.stderr.write(text)
    return 0
sys.exit(run_main(main))
"""
    run = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program], cwd=ROOT, capture_output=True, check=True
    )
    shown = "\x1b[32mok\x1b[0m \\x1b[2J\\x9b1m\\u202e\\r\\x00 ü\n\tend\n".encode()
    assert (run.stdout, run.stderr) == (shown * 2, shown)
