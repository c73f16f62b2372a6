"""Writes the table of all settings in docs/configuration.md from the settings classes.

`python -m devtools.settings_table`, after a setting was added or changed; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devtools import environment

if TYPE_CHECKING:
    from services.common.settings import Settings

PAGE = Path(__file__).parent.parent / "docs/configuration.md"
BEGIN = "<!-- written by `python -m devtools.settings_table` -->\n"
END = "<!-- end of the table -->\n"
# Of the stack, or not a constant.
DEFAULTS = {
    "PLATFORM_PORT": "8000",
    "PLATFORM_STATE": "`.state`",
    "RELOAD": "1 in a checkout",
    "PLATFORM_URL": "the checkout's stack",
    "MERCHANT_PASSWORD": "`password`",
    "LOG_FORMAT": "`console` in the stack and at a terminal, else `json`",
    "JWT_SECRET": "`.state/jwt-secret`",
    "USERS_FILE": "`services/auth_api/users.json`",
    "REDIS_URL": "the stack's Redis",
    "PSP_URL": "the sandbox",
    "PSP_API_KEY": "`sk_test_sandbox`",
}


def table() -> str:
    """All settings in Markdown, a row for each variable."""
    rows = ["| variable | read by | default | meaning |\n", "|---|---|---|---|\n"]
    for name, meaning in environment.OTHER_VARIABLES.items():
        reader = "merchant" if name in ("PLATFORM_URL", "MERCHANT_PASSWORD") else "the stack"
        rows.append(f"| `{name}` | {reader} | {DEFAULTS[name]} | {meaning} |\n")
    readers: dict[str, dict[str, type[Settings]]] = {}
    for service, settings in environment.SETTINGS.items():
        for field in settings.model_fields:
            readers.setdefault(field, {})[service] = settings
    for field, services in readers.items():
        if field.upper() not in environment.SET_BY_THE_STACK:
            rows.append(_row(field, services))
    return "".join(rows)


def _row(field: str, services: dict[str, type[Settings]]) -> str:
    first, *_ = services.values()
    known = first.variables()
    names = [f"`{n}`" for n in (field.upper(), f"{field.upper()}_FILE") if n in known]
    reader = "every service" if len(services) == len(environment.SETTINGS) else ", ".join(services)
    meaning = first.model_fields[field].description
    return f"| {', '.join(names)} | {reader} | {_default(field, services)} | {meaning} |\n"


def _default(field: str, services: dict[str, type[Settings]]) -> str:
    if field.upper() in DEFAULTS:
        return DEFAULTS[field.upper()]
    found = {
        service: str(settings.model_fields[field].get_default(call_default_factory=False) or "none")
        for service, settings in services.items()
    }
    usual = next(iter(found.values()))
    others = [f"{service}: {value}" for service, value in found.items() if value != usual]
    return f"{usual} ({', '.join(others)})" if others else usual


def updated(page: str) -> str:
    """The page with the table as it has to be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
