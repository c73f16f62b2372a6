"""The client's errors, with hints. Must stay quick to import: `--help` loads this module."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(eq=False)
class PlatformError(Exception):
    """The platform is unreachable, refuses, or sends an unknown response."""

    detail: str
    """What happened: the problem document's detail, if there is one."""
    hint: str = ""
    """The remedy; may have several lines."""
    code: str = ""
    request_id: str = ""
    errors: Sequence[str] = ()
    """One message for each invalid field."""
    status: int = 0
    """The HTTP status; 0 without a response."""

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})" if self.code else self.detail


class UnreachableError(PlatformError):
    """No complete response: the request may or may not have been processed."""
