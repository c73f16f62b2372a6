"""Records the start of the first job in a file, so that process start-up is not measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

VARIABLE = "BENCH_STARTED_FILE"


class Started:
    """Called for each job; only the first call has an effect."""

    def __init__(self) -> None:
        self._noted = False

    def __call__(self) -> None:
        if not self._noted:
            self._noted = True
            path = Path(os.environ[VARIABLE])
            if not path.exists():
                path.write_text(repr(time.time()))
