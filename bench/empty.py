"""`python -m bench.empty core_api`: a service's own entry point, with an empty app.

So the floor has the very same server, with the same settings, workers and threads: what is left
out is all that the service itself does with a request. It answers `200 {}` to everything.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADERS = [("Content-Type", "application/json"), ("Content-Length", "2")]


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The least that is an answer."""
    start_response("200 OK", _HEADERS)
    return [b"{}"]


def main(service: str) -> None:
    """Serves it as that service."""
    entry = importlib.import_module(f"services.{service}.__main__")
    if not hasattr(entry, "create_app"):
        raise SystemExit(f"{entry.__name__} has no create_app to replace")
    vars(entry)["create_app"] = lambda *_args, **_kwargs: app
    entry.main()


if __name__ == "__main__":
    main(sys.argv[1])
