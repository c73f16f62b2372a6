"""Tab completes the arguments of our commands, as the development shell sets it up."""

import functools
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, call

STACK = (ROOT / "nix/stack.nix").read_text()
_COMMAND = r'    (\w+) = \{\s+module = "([\w.]+)";\s+(?:parser = "([\w.]+)";)?'
PARSERS = {
    name: parser or f"{module}.parser" for name, module, parser in re.findall(_COMMAND, STACK)
}

# Without process-compose's own completions, which need bash-completion.
PLATFORM = f". {ROOT}/nix/platform/complete.sh; __start_process-compose() {{ :; }}"
[ASK] = re.findall(r'ask = shell: "python (.*) 2>/dev/null";', STACK)
# As bash does it at a Tab.
TAB = """\
eval "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$(complete -p "$1" | sed 's/.* -F \\([^ ]*\\) .*/\\1/')" "$1" "${@: -1}"
printf '%s\n' "${COMPREPLY[@]}"
"""


def bash(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "PC_CONFIG_FILES": str(ROOT / "process-compose.yaml"),
    }
    return call(["bash", "-c", script, "tab", *arguments], environ)


@functools.cache
def source(name: str) -> str:
    """What the shell evaluates at the first Tab after the command."""
    if name == "platform":
        return PLATFORM
    return bash(f'shell=bash name={name} parser={PARSERS[name]}; "$PYTHON" {ASK}').stdout


@pytest.mark.skipif(
    bash("type compgen").returncode != 0, reason="this bash is built without completion"
)
@pytest.mark.parametrize(
    ("command", "completed"),
    [
        (("merchant", ""), ["pay", "smoke", "token", "trace"]),
        (("merchant", "pay", "1250", "USD", "--payment"), ["--payment-method"]),
        (("logs", "--level", ""), ["debug", "error", "info", "warning"]),
        (("logs", "--service", "core"), ["core-api"]),
        (("merchant", "token", "--as", "al"), ["alice"]),
        (("merchant", "pay", "--payment-method", "pm_sandbox_f"), ["pm_sandbox_flaky"]),
        (("platform", "re"), ["reset"]),
        (("platform", "reset", ""), ["--yes"]),
        (("platform", "run", "sm"), ["smoke"]),
        (("platform", "process", "restart", "psp-"), ["psp-connector", "psp-sandbox"]),
    ],
)
def test_tab_completes(command: tuple[str, ...], completed: list[str]) -> None:
    done = bash(TAB, source(command[0]), *command)
    assert (sorted(done.stdout.split()), done.stderr) == (completed, "")


def test_tab_runs_no_code_of_the_current_folder(tmp_path: Path) -> None:
    """It may be a folder of others, such as /tmp."""
    (tmp_path / "shtab.py").write_text("raise SystemExit('foreign code')")
    parser = PARSERS["merchant"]
    done = bash(f'cd "{tmp_path}"; shell=bash name=merchant parser={parser}; "$PYTHON" {ASK}')
    assert (done.returncode, done.stdout[:1]) == (0, "#")


@pytest.mark.parametrize("parser", PARSERS.values())
def test_every_command_has_a_parser(parser: str) -> None:
    """A command without one would complete file names only."""
    module, _, name = parser.rpartition(".")
    assert getattr(importlib.import_module(module), name)().prog in PARSERS
