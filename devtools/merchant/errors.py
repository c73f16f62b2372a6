"""What can go wrong, each with what to do about it. No heavy import: `--help` passes here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class UsageError(Exception):
    """The command was not given as it must be; the text says how."""


@dataclass(eq=False)
class PlatformError(Exception):
    """The platform cannot be reached, refuses, or answers what nobody understands.

    Attributes:
        detail: what happened, for a person; the problem document's own where there is one.
        hint: what to do about it; may have several lines.
        code: the problem document's code.
        request_id: leads through the platform's logs.
        errors: one text for each wrong field.
        status: the HTTP status, 0 without an answer.
    """

    detail: str
    hint: str = ""
    code: str = ""
    request_id: str = ""
    errors: Sequence[str] = ()
    status: int = 0


class UnreachableError(PlatformError):
    """No answer came, or half of one: what was asked may or may not have happened."""
