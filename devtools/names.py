"""Finds misspelt settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from devtools import environment

# Similarities, tuned on the names in tests/devtools/test_names.py. Outside `.env`, which has only
# our settings, or with another first word, only a near miss counts.
_NEAR = 0.86
_SAME_FIRST_WORD = 0.7
# Read by OpenTelemetry, in addition to the endpoint.
_OPENTELEMETRY = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES")
_PROXIES = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")]


def known() -> frozenset[str]:
    """All variables that the stack and its commands read."""
    names = {*environment.OTHER_VARIABLES, *environment.INTERNAL_VARIABLES}
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
