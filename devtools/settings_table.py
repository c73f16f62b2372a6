"""All settings: the table in docs/configuration.md, .env.example, and devtools/inherited.txt.

`new sync` writes them from the settings classes; a test compares them.
"""

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
    "PSP_ACCOUNT": "`PSP_URL`",
}


_HEAD = """\
# Settings of the stack, written by `new sync`. Copy this file to .env; to change a setting, remove
# the # and add a value. The shell's environment overrides this file. See docs/configuration.md.
"""
_VALUE_CHARACTERS = 32


def rows() -> list[tuple[str, str, str, str]]:
    """Variables, readers, default and meaning of all settings, those of the stack first."""
    found = []
    for name, meaning in environment.OTHER_VARIABLES.items():
        reader = "merchant" if name in ("PLATFORM_URL", "MERCHANT_PASSWORD") else "the stack"
        found.append((f"`{name}`", reader, DEFAULTS[name], meaning))
    readers: dict[str, dict[str, type[Settings]]] = {}
    for service, settings in environment.SETTINGS.items():
        for field in settings.model_fields:
            readers.setdefault(field, {})[service] = settings
    for field, services in readers.items():
        if field.upper() not in SET_BY_THE_STACK:
            found.append(_row(field, services))
    return found


def _row(field: str, services: dict[str, type[Settings]]) -> tuple[str, str, str, str]:
    first, *_ = services.values()
    known = first.variables()
    names = [f"`{name}`" for name in (field.upper(), f"{field.upper()}_FILE") if name in known]
    reader = "every service" if len(services) == len(environment.SETTINGS) else ", ".join(services)
    meaning = first.model_fields[field].description or ""
    return ", ".join(names), reader, _default(field, services), meaning


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
    heads = ("variable", "read by", "default", "meaning"), ("---",) * 4
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (*heads, *rows()))


def example() -> str:
    """The text of .env.example."""
    lines, before = [_HEAD], ""
    for names, reader, default, meaning in rows():
        if reader != before:
            lines.append(f"\n# --- {reader}\n")
        before = reader
        name = f"#{names.split('`')[1]}="
        more = "" if default == "none" else f"; default: {default}"
        lines.append(f"{name.ljust(_VALUE_CHARACTERS)}# {meaning}{more}\n")
    return "".join(lines)


def variables() -> str:
    """The text of devtools/inherited.txt: a variable a line."""
    return "".join(f"{name}\n" for names, *_ in rows() for name in names.split("`")[1::2])


def updated(page: str) -> str:
    """The page with the current table."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after
