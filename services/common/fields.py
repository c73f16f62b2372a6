"""Validators of settings, which return the value. Each raises ValueError with the rule."""

import contextlib
import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit

_HEADER = re.compile(
    r" *[\w!#$&'*+.^`|~-]+ *=([ -$&-+\--~]|%[2-6][\da-f]|%7[\da-e])*", re.ASCII | re.IGNORECASE
)


def otlp_headers(text: str) -> str:
    """Validates headers `name=value,...`; Caddy's exporter would log a malformed one."""
    if all(map(_HEADER.fullmatch, text.split(","))):
        return text
    raise ValueError(
        "name=value, separated by commas; values are printable ASCII, with %25 for a percent sign "
        "and %2C for a comma"
    )


def base_url(text: str) -> str:
    """Validates the address of an HTTP server, and removes a final slash.

    A user name in it would replace the API key, and a query would swallow the path.
    """
    with contextlib.suppress(ValueError):  # e.g. a port above 65535
        parts = urlsplit(text)
        # urlsplit ignores line breaks, which no request may contain.
        is_clean = text.isprintable() and not {"?", "#", " "} & set(text)
        is_bare = "@" not in parts.netloc and is_clean
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and is_bare:
            return text.rstrip("/")
    raise ValueError(
        "an http:// or https:// address without user and query, such as http://127.0.0.1:4318"
    )


def readable_file(path: Path) -> Path:
    """Validates the path of a readable file."""
    reason: str | None = "not a file"
    try:
        if path.is_file():
            path.open("rb").close()
            return path
    except OSError as error:  # e.g. a folder that may not be entered, or too long a name
        reason = error.strerror
    raise ValueError(f"a file that can be read: {reason}")


def ip_address(text: str) -> str:
    """Validates an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("an IP address, such as 127.0.0.1 or 0.0.0.0") from None
    return text


def host_names(text: str) -> str:
    """Validates host names separated by spaces."""
    names = text.lower().split()
    # Caddy refuses a repeated name, and a line break ends its directive.
    is_wrong = len(set(names)) < len(names) or "\n" in text.strip()
    if is_wrong or not all(re.fullmatch(r"[a-z0-9.-]+", name) for name in names):
        raise ValueError("host names without scheme and port, each once, separated by spaces")
    return text
