"""All settings, from the settings classes: the table in docs/configuration.md, and .env.example.

`new sync` writes both; a test compares them.
"""

from dataclasses import dataclass

from devtools import environment
from devtools.checkout import SET_BY_THE_STACK
from services.common.settings import Settings

BEGIN = "<!-- written by `new sync` -->\n"
END = "<!-- end of the table -->\n"
# Variables of the stack, or without a constant default.
DEFAULTS = {
    "PLATFORM_PORT": "8000",
    "PLATFORM_STATE": "`.state`",
    "CONSOLE": "on",
    "RELOAD": "1 in a checkout",
    "PLATFORM_URL": "the checkout's stack",
    "MERCHANT_PASSWORD": "`password`",
    "LOG_FORMAT": "`console` in the stack and at a terminal, else `json`",
    "JWT_SECRET": "`.state/jwt-secret`",
    "USERS_FILE": "`services/auth_api/users.json`",
    "REDIS_CLUSTER": "0",
    "REDIS_URL": "the stack's Redis",
    "PSP_URL": "the sandbox",
    "PSP_API_KEY": "`sk_test_sandbox`",
}


_HEAD = """\
# Settings of the stack, written by `new sync`. Copy this file to .env; to change a setting, remove
# the # and add a value. The shell's environment overrides this file. See docs/configuration.md.
"""
_VALUE_CHARACTERS = 32


@dataclass(frozen=True)
class Row:
    """A setting."""

    names: list[str]
    """The variable and, if it may be a secret, that of its file."""
    reader: str
    default: str
    meaning: str


def rows() -> list[Row]:
    """All settings, those of the stack first."""
    found = []
    for name, meaning in environment.OTHER_VARIABLES.items():
        reader = "merchant" if name in ("PLATFORM_URL", "MERCHANT_PASSWORD") else "the stack"
        found.append(Row([name], reader, DEFAULTS[name], meaning))
    readers: dict[str, dict[str, type[Settings]]] = {}
    for service, settings in environment.SETTINGS.items():
        for field in settings.model_fields:
            readers.setdefault(field, {})[service] = settings
    for field, services in readers.items():
        if field.upper() not in SET_BY_THE_STACK:
            found.append(_row(field, services))
    return found


def _row(field: str, services: dict[str, type[Settings]]) -> Row:
    first, *_ = services.values()
    known = first.variables()
    names = [name for name in (field.upper(), f"{field.upper()}_FILE") if name in known]
    reader = "every service" if len(services) == len(environment.SETTINGS) else ", ".join(services)
    meaning = first.model_fields[field].description or ""
    return Row(names, reader, _default(field, services), meaning)


def _default(field: str, services: dict[str, type[Settings]]) -> str:
    if field.upper() in DEFAULTS:
        return DEFAULTS[field.upper()]
    found = {
        service: str(settings.model_fields[field].get_default(call_default_factory=False) or "none")
        for service, settings in services.items()
    }
    usual = next(iter(found.values()))
    others = [f"{service}: {value}" for service, value in found.items() if value != usual]
    return f"{usual}; {', '.join(others)}" if others else usual


def table() -> str:
    """All settings in Markdown, a row for each."""
    lines = ["| variable | read by | default | meaning |\n", "|---|---|---|---|\n"]
    for row in rows():
        names = ", ".join(f"`{name}`" for name in row.names)
        lines.append(f"| {names} | {row.reader} | {row.default} | {row.meaning} |\n")
    return "".join(lines)


def example() -> str:
    """The text of .env.example."""
    lines, reader = [_HEAD], ""
    for row in rows():
        if row.reader != reader:
            reader = row.reader
            lines.append(f"\n# --- {reader}\n")
        default = "" if row.default == "none" else f"; default: {row.default}"
        lines.append(f"#{row.names[0]}=".ljust(_VALUE_CHARACTERS) + f"# {row.meaning}{default}\n")
    return "".join(lines)


def updated(page: str) -> str:
    """The page with the current table."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after
