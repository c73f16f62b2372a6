"""`python -m bench.empty core_api`: a service's own entry point, with an empty app.

The floor has the same server, settings, workers and threads, without the service's own work. Every
request gets `200 {}`.
"""

import importlib
import runpy
import sys
from collections.abc import Callable
from typing import Any

_HEADERS = [("Content-Type", "application/json"), ("Content-Length", "2")]


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The smallest response."""
    start_response("200 OK", _HEADERS)
    return [b"{}"]


def main(service: str) -> None:
    """Runs the empty app as the named service."""
    module = importlib.import_module(f"services.{service}.app")
    if not hasattr(module, "create_app"):
        raise SystemExit(f"{module.__name__} has no create_app to replace")
    vars(module)["create_app"] = lambda *_args, **_kwargs: app
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
