"""Notes in a file when the first job began, so that starting a process is not measured with it."""

from __future__ import annotations

import os
import time
from pathlib import Path

VARIABLE = "BENCH_STARTED_FILE"


class Started:
    """Called at each job; only the first call does something."""

    def __init__(self) -> None:
        self._noted = False

    def __call__(self) -> None:
        if not self._noted:
            self._noted = True
            path = Path(os.environ[VARIABLE])
            if not path.exists():
                path.write_text(repr(time.time()))
