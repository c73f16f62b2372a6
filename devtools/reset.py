"""`python -m devtools.reset`: deletes the state of this checkout, for `platform reset`."""

import os
import sys

from devtools import state
from devtools.address import state_folder
from devtools.processes import end_left
from services.common.command import run_main


def main() -> int:
    """Deletes the state; returns the exit code."""
    folder = state_folder(os.environ).absolute()
    if not end_left(folder):
        sys.stderr.write("platform: nothing was deleted\n")
        return 1
    if not state.is_ours(folder):
        sys.stderr.write(f"platform: there is nothing to reset: no stack has used {folder}\n")
        return 1
    try:
        state.forget(folder)
    except OSError as error:
        sys.stderr.write(f"platform: {error.filename}: {error.strerror}\n")
        return 1
    sys.stdout.write(f"platform: {folder} is as before the first start\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
