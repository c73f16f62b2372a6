"""Hides a process's secrets in texts that may come from a remote server, which may send them back.

Secrets are those of its settings: Secrets, logins in addresses, values of headers; and the login
of the user's proxy.
"""

import contextlib
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from urllib.request import getproxies_environment

from services.common.settings import ADDRESSES, Secret, Settings

# Shorter ones may be ordinary words.
_CHARACTERS_MIN = 8
# A user or a data set is named so, and so may be a service: no secret without a password.
_NAME = re.compile(r"[a-z]+([-_.][a-z]+)*")
_SECRET_HEADER = re.compile("auth|key|token|secret|team|dsn", re.IGNORECASE)


def redactor(settings: Settings) -> Callable[[str], str]:
    """A function that returns a text with `<secret>` for each secret, also as in JSON or a URL."""
    long = {value for value in _secrets(settings) if len(value) >= _CHARACTERS_MIN}
    forms = {
        form
        for value in long
        for form in (value, json.dumps(value)[1:-1], quote(value), quote(value, safe=""))
    }
    ordered = sorted(forms, key=len, reverse=True)  # one may be the beginning of another
    lower_forms = [form.lower() for form in ordered]
    # What lower() makes of some letters depends on the next one.
    exact_forms = [form for form in ordered if not form.isascii()]
    pattern = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE)

    def redacted(text: str) -> str:
        lower = text.lower()  # much faster than the pattern, which few texts need
        found = any(form in lower for form in lower_forms)
        if found or any(form in text for form in exact_forms):
            return pattern.sub("<secret>", text)
        return text

    return redacted


def redact_all(value: Any, redacted: Callable[[str], str]) -> Any:
    """Applies `redacted` to each text in a value of JSON."""
    if isinstance(value, dict):
        return {redacted(str(key)): redact_all(item, redacted) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(item, redacted) for item in value]
    return value if isinstance(value, int | float | None) else redacted(str(value))


def _secrets(settings: Settings) -> Iterator[str]:
    addresses = [*getproxies_environment().values()]
    for value in dict(settings).values():
        if isinstance(value, Secret):
            yield value.get_secret_value()
        elif isinstance(value, str) and "://" in value:
            addresses += ADDRESSES.split(value)
    for header in settings.otel_exporter_otlp_headers.split(","):
        name, _, value = header.partition("=")
        for word in unquote(value).split():
            if _SECRET_HEADER.search(name) or not _NAME.fullmatch(word):
                yield word
    for address in addresses:
        with contextlib.suppress(ValueError):  # of a proxy
            yield from _logins(address)


def _logins(address: str) -> Iterator[str]:
    parts = urlsplit(address)
    user, password = parts.username or "", parts.password or ""
    if password or not _NAME.fullmatch(user):
        yield from {password or user, unquote(password or user)}
    if user or password:  # as in a header
        yield b64encode(unquote(f"{user}:{password}").encode()).decode()
    yield from parse_qs(parts.query).get("password", [])
