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
