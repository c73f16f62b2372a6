"""`python -m bench.empty core_api`: a service's own entry point, with an empty app.

The floor has the same server, settings, workers and threads, without the service's own work. Every
request gets `200 {}`.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADERS = [("Content-Type", "application/json"), ("Content-Length", "2")]


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The smallest response."""
    start_response("200 OK", _HEADERS)
    return [b"{}"]


def main(service: str) -> None:
    """Runs the empty app as the named service."""
    entry = importlib.import_module(f"services.{service}.__main__")
    if not hasattr(entry, "create_app"):
        raise SystemExit(f"{entry.__name__} has no create_app to replace")
    vars(entry)["create_app"] = lambda *_args, **_kwargs: app
    entry.main()


if __name__ == "__main__":
    main(sys.argv[1])
