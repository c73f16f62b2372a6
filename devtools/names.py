"""Finds misspelt and useless variables, in `.env` and in the shell."""

import difflib
from collections.abc import Iterable

from devtools import envfile, environment
from devtools.checkout import SET_BY_THE_STACK, Checkout

# Similarities, tuned on the names in tests/devtools/test_names.py. Outside `.env`, which has only
# our settings, or with another first word, only a near miss counts.
_NEAR = 0.86
_SAME_FIRST_WORD = 0.7
# Set by the flake's scripts and by nixw, for each other.
_INTERNAL = ("PLATFORM_CHECKOUT", "PLATFORM_CODE", "PLATFORM_DROPPED")
# Read by OpenTelemetry, in addition to the endpoint.
_OPENTELEMETRY = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES")
_PROXIES = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")]


def known() -> frozenset[str]:
    """All variables that the stack and its commands read."""
    names = {*environment.OTHER_VARIABLES, *_INTERNAL}
    names |= {*_OPENTELEMETRY, *_PROXIES, *(name.upper() for name in _PROXIES)}
    return frozenset(names.union(*(s.variables() for s in environment.SETTINGS.values())))


def typos(names: Iterable[str], *, of_envfile: bool = False) -> list[str]:
    """A message for each name that is probably a misspelt setting."""
    settings = sorted(known())
    found = {
        name: _similar(name.upper(), settings, of_envfile=of_envfile)
        for name in sorted(set(names).difference(settings))
    }
    return [f"{n} is not a setting; did you mean {s[0]}?" for n, s in found.items() if s]


def _similar(name: str, settings: list[str], *, of_envfile: bool) -> list[str]:
    first = name.partition("_")[0]
    family = [one for one in settings if of_envfile and one.partition("_")[0] == first]
    return difflib.get_close_matches(name, settings, 1, _NEAR) or difflib.get_close_matches(
        name, family, 1, _SAME_FIRST_WORD
    )


def faults(checkout: Checkout) -> list[str]:
    """A line for each fault in `.env`, and for a second file."""
    values = checkout.dotenv.values
    found = [*checkout.dotenv.faults, *envfile.faults_of_second(checkout.folder)]
    found += [f".env: {typo}" for typo in typos(values, of_envfile=True)]
    if values.get("PLATFORM_STATE"):
        found.append(
            ".env: PLATFORM_STATE is needed before .env is read: set it in the shell that starts "
            "the stack"
        )
    return found


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
