"""Renders the templates: files of each kind of service, and a block for each stack."""

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
    """Paths and texts of a new service's files."""
    environment = _environment()
    for kind in ("both", "worker" if facts["worker"] else "api"):
        for path in sorted((_FOLDER / kind).rglob(f"*{_SUFFIX}")):
            template = environment.get_template(str(path.relative_to(_FOLDER)))
            name = path.name.removesuffix(_SUFFIX)
            yield f"{path.parent.name}/{facts['folder']}/{name}", template.render(facts)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  it renders code
    )
