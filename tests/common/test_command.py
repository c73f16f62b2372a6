"""What every command-line program does around its `main`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.parametrize(
    "words",
    [
        ["devtools.merchant", "smoke", "--url", "http://127.0.0.1:1"],
        ["devtools.doctor"],
        ["services.psp_connector.deadletters", "--help"],
        ["services.auth_api.users", "list"],
    ],
    ids=lambda words: words[0],
)
def test_a_reader_that_leaves_ends_it_quietly(words: list[str]) -> None:
    """`... | head -0`: exit code of SIGPIPE, no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        run = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert (run.returncode, run.stderr) == (141, b"")


def test_data_of_others_cannot_steer_the_terminal() -> None:
    """Neither by print nor by write, on both streams: escapes, C1, bidi; lines, colours stay."""
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
