"""The machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata


def facts() -> dict[str, str]:
    """Cores, load and versions: figures of different machines are not comparable."""
    return {
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "falcon": metadata.version("falcon"),
        "gunicorn": metadata.version("gunicorn"),
        "redis": _redis_version(),
    }


def _redis_version() -> str:
    command = ["redis-server", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return next(word for word in done.stdout.split() if word.startswith("v="))[2:]
