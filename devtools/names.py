"""Which variables are ours, and which only look like it."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from devtools import environment as plan

if TYPE_CHECKING:
    from collections.abc import Iterable

# Where two names begin alike only the rest is compared, since PLATFORM_ alone makes any two look
# alike. Tried on the variables of shells, editors, CI systems and hosters: tests/preflight.
_REST_CLOSE = 0.6
_NAME_CLOSE = 0.86
# Of the shell, of Nix, of the programs that are started: no business of ours in `.env` either.
_FOREIGN = re.compile(
    "(?:AWS|CI|COMPOSE|DOCKER|GIT|GITHUB|LC|NIX|NIXW|OTEL|PC|PIP|PROC_COMP|SSL|STRIPE|VSCODE|XDG)_.*"
    "|PYTHON.*|.*_PROXY|CI|COLORTERM|EDITOR|HOME|HOST|HOSTNAME|LANG|LANGUAGE|LD_LIBRARY_PATH|LOGNAME"
    "|NO_COLOR|PAGER|PATH|PORT|PWD|REDIS_TLS_URL|REQUESTS_CA_BUNDLE|SHELL|TERM|TMPDIR|TZ|USER|VIRTUAL_ENV",
    re.IGNORECASE,
)


def known() -> frozenset[str]:
    """Every variable that something here reads."""
    names = set(plan.OTHER_VARIABLES) | set(plan.INTERNAL_VARIABLES)
    for settings in plan.SETTINGS.values():
        names |= set(settings.variables())
    return frozenset(names)


def is_foreign(name: str) -> bool:
    """Whether the variable is plainly somebody else's."""
    return _FOREIGN.fullmatch(name) is not None


def meant(name: str) -> str | None:
    """The variable of ours that is probably meant; None when it is one, or nothing like one."""
    names = known()
    if name in names or is_foreign(name):
        return None
    if name.upper() in names:
        return name.upper()
    scores = {ours: _closeness(name.upper(), ours) for ours in sorted(names)}
    best = max(scores, key=lambda ours: scores[ours])
    return best if scores[best] > 0 else None


def _closeness(name: str, ours: str) -> float:
    """0 when the two are not close."""
    whole = difflib.SequenceMatcher(None, name, ours).ratio()
    prefix, _, rest = ours.partition("_")
    given_prefix, _, given_rest = name.partition("_")
    if prefix == given_prefix and rest and given_rest:
        close = difflib.SequenceMatcher(None, given_rest, rest).ratio() >= _REST_CLOSE
        return whole if close else 0
    return whole if whole >= _NAME_CLOSE else 0


def typos(names: Iterable[str]) -> list[str]:
    """A sentence for each name that is probably a slip of the pen for one of ours."""
    found = {name: meant(name) for name in names}
    return [
        f"{name} is not a setting; did you mean {ours}?"
        for name, ours in sorted(found.items())
        if ours
    ]


def strangers(names: Iterable[str]) -> list[str]:
    """A sentence for each name in `.env` that nobody here reads and that resembles nothing."""
    ours = known()
    return [
        f"{name} is not a setting of ours; the processes are given it all the same"
        for name in sorted(names)
        if name not in ours and not is_foreign(name) and not meant(name)
    ]
