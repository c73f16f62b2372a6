"""Finds misspelt settings."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from devtools import environment

if TYPE_CHECKING:
    from collections.abc import Iterable

# Similarities, chosen on the names in tests/devtools/test_names.py. Beyond `.env`, which is ours
# alone, or between different first words, only a near miss counts.
_NEAR = 0.86
_SAME_FIRST_WORD = 0.7
_PROXIES = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")]


def known() -> frozenset[str]:
    """All variables that the stack and its commands read."""
    names = {*environment.OTHER_VARIABLES, *environment.INTERNAL_VARIABLES}
    names |= {*_PROXIES, *(name.upper() for name in _PROXIES)}
    return frozenset(names.union(*(s.variables() for s in environment.SETTINGS.values())))


def typos(names: Iterable[str], *, of_envfile: bool = False) -> list[str]:
    """A sentence for each name that is probably a misspelt setting."""
    ours = known()
    found = {
        name: _meant(name.upper(), of_envfile=of_envfile) for name in sorted(set(names) - ours)
    }
    return [
        f"{name} is not a setting; did you mean {near[0]}?" for name, near in found.items() if near
    ]


def _meant(name: str, *, of_envfile: bool) -> list[str]:
    ours = sorted(known())
    family = [
        one for one in ours if of_envfile and one.split("_")[0] == name.split("_", maxsplit=1)[0]
    ]
    return difflib.get_close_matches(name, ours, 1, _NEAR) or difflib.get_close_matches(
        name, family, 1, _SAME_FIRST_WORD
    )
