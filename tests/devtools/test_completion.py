"""Tab completes the words of our commands, as the development shell sets it up."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support import ROOT

STACK = (ROOT / "nix/stack.nix").read_text()
PARSERS = dict(re.findall(r'    (\w+) = \{\s+module = "[\w.]+";\s+parser = "([\w.]+)";', STACK))

# As bash does it at a Tab.
TAB = """\
eval "$("$PYTHON" -m shtab --shell bash --prefix "$1" "$2")"
COMP_WORDS=("${@:3}") COMP_CWORD=$(($# - 3))
"$(complete -p "$1" | sed 's/.* -F \\([^ ]*\\) .*/\\1/')" "$1" "${@: -1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def bash(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script, "tab", *words],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(
    bash("type compgen").returncode != 0, reason="this bash is built without completion"
)
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (("merchant", ""), ["list", "loyalty", "pay", "show", "smoke", "token", "trace"]),
        (("merchant", "tr"), ["trace"]),
        (("merchant", "pay", "1250", "USD", "--payment"), ["--payment-method"]),
        (("deadletters", "replay", "--a"), ["--all"]),
        (("logs", "--re"), ["--request"]),
        (("logs", "--level", ""), ["debug", "error", "info", "warning"]),
    ],
)
def test_tab_completes(words: tuple[str, ...], completed: list[str]) -> None:
    done = bash(TAB, words[0], PARSERS[words[0]], *words)
    assert (completed, "") == (sorted(done.stdout.split()), done.stderr)


def test_every_command_has_words() -> None:
    """A command of nix/stack.nix without a parser would complete file names only."""
    assert len(re.findall(r'\bmodule = "', STACK)) == len(PARSERS)
