"""`new`: see `new --help`."""

import os
import sys

from devtools.new.cli import main
from services.common.command import run_main

if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:], os.environ)))
