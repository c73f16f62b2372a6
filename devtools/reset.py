"""`platform reset`, in two steps; the stack stops between them.

`python -m devtools.reset ask [--yes]` asks whether to delete the state of this checkout,
and `... forget` does it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from devtools import orphans, state
from devtools.address import state_folder
from services.common.command import run_main

EXIT_NOT_DONE = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Does one step; returns the exit code."""
    folder = state_folder(os.environ).absolute()
    if arguments[:1] == ["forget"]:
        return _forget(folder)
    if list(arguments[1:]) not in ([], ["--yes"]):
        sys.stderr.write("platform: reset takes nothing but --yes\n")
        return EXIT_USAGE
    if not state.is_ours(folder):
        sys.stderr.write(f"platform: there is nothing to reset: no stack has used {folder}\n")
        return EXIT_NOT_DONE
    return 0 if "--yes" in arguments or _agrees(folder) else EXIT_NOT_DONE


def _agrees(folder: Path) -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        sys.stderr.write(
            "platform: reset asks first, which needs a terminal; `platform reset --yes`"
            " (`nix run .#reset -- --yes`) does not ask\n"
        )
        return False
    sys.stdout.write(
        "platform: this stops the stack and deletes its transactions, points, logs and secrets"
        f" in {folder}\nplatform: go on? [y/N] "
    )
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() in {"y", "yes"}:
        return True
    sys.stdout.write("platform: nothing was changed\n")
    return False


def _forget(folder: Path) -> int:
    if left := orphans.find(folder):
        sys.stderr.write(f"platform: {left[0]} still runs; nothing was deleted\n")
        return EXIT_NOT_DONE
    try:
        state.forget(folder)
    except OSError as error:
        sys.stderr.write(f"platform: {error.filename}: {error.strerror}\n")
        return EXIT_NOT_DONE
    sys.stdout.write(f"platform: {folder} is as before the first start\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:])))
