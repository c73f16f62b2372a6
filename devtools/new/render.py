"""Renders the template: the folders `service` and `tests`, and a block for each stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_FOLDER = Path(__file__).with_name("template")
_SUFFIX = ".jinja"


def block(stack: str, facts: Mapping[str, Any]) -> str:
    """A service's block in `stack`, such as `compose.yaml`."""
    return _environment().get_template(f"blocks/{stack}{_SUFFIX}").render(facts)


def files(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Paths and texts of a new service's files; empty ones are left out."""
    environment = _environment()
    for part, target in (("service", "services"), ("tests", "tests")):
        for path in sorted((_FOLDER / part).iterdir()):
            text = environment.get_template(f"{part}/{path.name}").render(facts)
            name = path.name.removesuffix(_SUFFIX)
            if text or name == "__init__.py":
                yield f"{target}/{facts['folder']}/{name}", text


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  it renders code
    )
