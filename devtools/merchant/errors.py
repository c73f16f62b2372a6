"""The client's errors, with hints. No slow import: `--help` loads this module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class UsageError(Exception):
    """Wrong usage of a command."""


@dataclass(eq=False)
class PlatformError(Exception):
    """The platform is unreachable, refuses, or sends an unknown response.

    Attributes:
        detail: what happened, for a person; the problem document's own where there is one.
        hint: the remedy; may have several lines.
        code: the problem document's code.
        request_id: leads through the platform's logs.
        errors: one text for each wrong field.
        status: the HTTP status, 0 without a response.
    """

    detail: str
    hint: str = ""
    code: str = ""
    request_id: str = ""
    errors: Sequence[str] = ()
    status: int = 0


class UnreachableError(PlatformError):
    """No complete response: the request may or may not have been processed."""
