"""All settings: the lists of them, and misspelt ones.

`new sync` writes the lists: the table in docs/configuration.md, .env.example, and
devtools/inherited.txt; a test compares them.
"""

import difflib
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from pydantic.fields import FieldInfo

from devtools import envfile
from devtools.catalog import PYTHON
from devtools.checkout import SET_BY_THE_STACK, Checkout
from services.common.settings import Settings

_ROOT = f"{Path(__file__).parents[1]}/"
_SERVICES = f"{_ROOT}services"
FAULTS: list[str] = []
"""A line for each service whose settings cannot be imported, as while they are being edited."""


def _settings() -> Iterator[tuple[str, type[Settings]]]:
    for name, service in PYTHON.items():
        try:
            yield name, service.settings()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the code of a service raises
            file, text = f"{_SERVICES}/{service.folder}/settings.py", " ".join(str(error).split())
            frames = traceback.extract_tb(error.__traceback__)
            lines = [(one.filename, one.lineno) for one in frames if _SERVICES in one.filename]
            if isinstance(error, SyntaxError):
                lines.append((error.filename or file, error.lineno))
            at = "{}, line {}".format(*lines[-1]) if lines else file
            FAULTS.append(f"{at.removeprefix(_ROOT)}: {type(error).__name__}: {text}")


SETTINGS: Mapping[str, type[Settings]] = dict(_settings())
# Variables that are in no settings class: who reads them, default and meaning.
OTHERS: Mapping[str, tuple[str, str, str]] = {
    "PLATFORM_PORT": (
        "the stack", "8000",
        "the router's port; the others follow; `auto` takes a block of its own",
    ),
    "PLATFORM_STATE": (
        "the stack", "`.state`",
        "data, logs, secret and socket; set it in the shell, not in `.env`",
    ),
    "CONSOLE": ("the stack", "on", "on starts the console at PLATFORM_PORT + 6, off does not"),
    "RELOAD": (
        "the stack", "1 in a checkout", "1 restarts a service when its code is saved, 0 does not",
    ),
    "PLATFORM_URL": ("merchant", "the checkout's stack", "where merchant finds the router"),
    "MERCHANT_PASSWORD": ("merchant", "`password`", "the password that merchant logs in with"),
}  # fmt: skip
# Of settings without a constant default.
_DEFAULTS = {
    "LOG_FORMAT": "`console` in the stack and at a terminal, else `json`",
    "JWT_SECRET": "`.state/jwt-secret`",
    "USERS_FILE": "`services/auth_api/users.json`",
    "REDIS_CLUSTER": "0",
    "REDIS_URL": "the stack's Redis",
    "PSP_URL": "the sandbox",
    "PSP_API_KEY": "`sk_test_sandbox`",
    "PSP_ACCOUNT": "`PSP_URL`",
}
# Set by the flake's scripts and by nixw, for each other.
_INTERNAL = ("PLATFORM_CHECKOUT", "PLATFORM_CODE", "PLATFORM_DROPPED")
# Read by OpenTelemetry, in addition to the settings.
_OPENTELEMETRY = "OTEL_RESOURCE_ATTRIBUTES"
_PROXIES = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")]

# Similarities, tuned on the names in tests/devtools/test_settings.py. Outside `.env`, which has
# only our settings, or with another first word, only a near miss counts.
_NEAR = 0.86
_SAME_FIRST_WORD = 0.7

_BEGIN = "<!-- written by `new sync` -->\n"
_END = "<!-- end of the table -->\n"
_HEAD = """\
# Settings of the stack, written by `new sync`. Copy this file to .env; to change a setting, remove
# the # and add a value. The shell's environment overrides this file. See docs/configuration.md.
"""
_VALUE_CHARACTERS = 32


def readers(services: Collection[str]) -> str:
    """Who reads a setting of these services."""
    return "every service" if len(services) == len(SETTINGS) else ", ".join(services)


def rows() -> list[tuple[str, str, str, str]]:
    """Variables, readers, default and meaning of all settings, those of the stack first."""
    rows = [(f"`{name}`", *texts) for name, texts in OTHERS.items()]
    services: dict[str, dict[str, type[Settings]]] = {}
    for service, settings in SETTINGS.items():
        for field in settings.model_fields:
            services.setdefault(field, {})[service] = settings
    return rows + [
        _row(field, readers_)
        for field, readers_ in services.items()
        if field.upper() not in SET_BY_THE_STACK
    ]


def _row(field: str, services: dict[str, type[Settings]]) -> tuple[str, str, str, str]:
    first, *_ = services.values()
    known = first.variables()
    names = [f"`{name}`" for name in (field.upper(), f"{field.upper()}_FILE") if name in known]
    meaning = first.model_fields[field].description or ""
    return ", ".join(names), readers(services), _default(field, services), meaning


def _default(field: str, services: dict[str, type[Settings]]) -> str:
    if field.upper() in _DEFAULTS:
        return _DEFAULTS[field.upper()]
    defaults = {
        service: _shown(settings.model_fields[field]) for service, settings in services.items()
    }
    usual = next(iter(defaults.values()))
    others = [f"{service}: {value}" for service, value in defaults.items() if value != usual]
    return f"{usual}; {', '.join(others)}" if others else usual


def _shown(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=False)
    if field.is_required():
        return "none: it must be set"
    return "none" if default is None else str(default) or "none"


def table() -> str:
    """All settings in Markdown, a row for each."""
    heads = ("variable", "read by", "default", "meaning"), ("---",) * 4
    lines = [[cell.replace("|", r"\|") for cell in cells] for cells in (*heads, *rows())]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


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
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + table() + _END + after


def known() -> frozenset[str]:
    """All variables that the stack and its commands read."""
    names = {*OTHERS, *_INTERNAL}
    names |= {_OPENTELEMETRY, *_PROXIES, *(name.upper() for name in _PROXIES)}
    return frozenset(names.union(*(s.variables() for s in SETTINGS.values())))


def typos(names: Iterable[str], *, of_envfile: bool = False) -> list[str]:
    """A message for each name that is probably a misspelt setting."""
    settings = sorted(known())
    similar = {
        name: _similar(name.upper(), settings, of_envfile=of_envfile)
        for name in sorted(set(names).difference(settings))
    }
    return [f"{n} is not a setting; did you mean {s[0]}?" for n, s in similar.items() if s]


def _similar(name: str, settings: list[str], *, of_envfile: bool) -> list[str]:
    first = name.partition("_")[0]
    family = [setting for setting in settings if of_envfile and setting.partition("_")[0] == first]
    return difflib.get_close_matches(name, settings, 1, _NEAR) or difflib.get_close_matches(
        name, family, 1, _SAME_FIRST_WORD
    )


def dotenv_faults(checkout: Checkout) -> list[str]:
    """A line for each fault in `.env`, and one for a `.pc_env`."""
    values = checkout.dotenv.values
    faults = [*checkout.dotenv.faults, *envfile.pc_env_faults(checkout.folder)]
    faults += [f".env: {typo}" for typo in typos(values, of_envfile=True)]
    if values.get("PLATFORM_STATE"):
        faults.append(
            ".env: PLATFORM_STATE is needed before .env is read: set it in the shell that starts "
            "the stack"
        )
    return faults


def warnings(checkout: Checkout) -> list[str]:
    """A line for each variable that is probably a mistake."""
    values = checkout.dotenv.values
    dropped = checkout.environ.get("PLATFORM_DROPPED", "").split()
    shell = [name for name in (*checkout.environ, *dropped) if name not in values]
    ignored = [
        f".env: {name} has no effect: {why}"
        for name, why in SET_BY_THE_STACK.items()
        if values.get(name)
    ]
    return ignored + [f"in the environment: {typo}" for typo in typos(shell)]
