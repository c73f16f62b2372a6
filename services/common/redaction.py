"""Hides a process's secrets in texts that may come from a remote server, which may send them back.

Secrets are those of its settings: Secrets, passwords in addresses, values of headers; and the
password of the user's proxy.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, quote, unquote, urlsplit
from urllib.request import getproxies_environment

from services.common.settings import ADDRESSES, Secret, Settings

# Shorter ones may be ordinary words.
_CHARACTERS_MIN = 8


def redactor(settings: Settings) -> Callable[[str], str]:
    """A function that returns a text with `<secret>` for each secret, also as in JSON or a URL."""
    long = {value for value in _secrets(settings) if len(value) >= _CHARACTERS_MIN}
    forms = {
        form.lower()
        for value in long
        for form in (value, json.dumps(value)[1:-1], quote(value), quote(value, safe=""))
    }
    ordered = sorted(forms, key=len, reverse=True)  # one may be the beginning of another
    pattern = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE)

    def redacted(text: str) -> str:
        lower = text.lower()  # much faster than the pattern, which few texts need
        return pattern.sub("<secret>", text) if any(form in lower for form in ordered) else text

    return redacted


def _secrets(settings: Settings) -> Iterator[str]:
    addresses = [*getproxies_environment().values()]
    for value in dict(settings).values():
        if isinstance(value, Secret):
            yield value.get_secret_value()
        elif isinstance(value, str) and "://" in value:
            addresses += ADDRESSES.split(value)
    for header in settings.otel_exporter_otlp_headers.split(","):
        yield from unquote(header.partition("=")[2]).split()
    for address in addresses:
        with contextlib.suppress(ValueError):  # of a proxy
            yield from _passwords(address)


def _passwords(address: str) -> Iterator[str]:
    parts = urlsplit(address)
    if text := parts.password or parts.username:
        yield from {text, unquote(text)}
    yield from parse_qs(parts.query).get("password", [])
