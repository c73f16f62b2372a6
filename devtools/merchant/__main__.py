"""`python -m devtools.merchant`: the command-line client."""

import os
import sys

from devtools import checkout
from devtools.merchant.cli import main
from services.common.command import run_main

if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:], checkout.current(os.environ).merged)))
