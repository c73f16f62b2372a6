"""`python -m services.merchant`: the command-line client."""

from __future__ import annotations

import os
import sys

from services import dotenv
from services.command import run_main
from services.merchant.cli import main

if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:], dotenv.merged(os.environ), sys.stdout)))
