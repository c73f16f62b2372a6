"""Hides a process's secrets in texts that may come from a remote server, which may send them back.

Secrets are those of its settings: Secrets, logins in addresses, values of headers; and the login
of the user's proxy.
"""

import contextlib
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from urllib.request import getproxies_environment

from services.common.settings import ADDRESSES, Secret, Settings

# Shorter ones may be ordinary words.
_CHARACTERS_MIN = 8
# Other headers have names, of a tenant or a data set, and so have users: as services may have.
_SECRET_HEADER = re.compile("auth|key|token|secret|pass|team|dsn|cookie", re.IGNORECASE)
_KEY = re.compile(r"(?=.*\d)\S{20,}")


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
    proxies = getproxies_environment().values()
    addresses = [proxy if "://" in proxy else f"http://{proxy}" for proxy in proxies]
    for value in dict(settings).values():
        if isinstance(value, Secret):
            yield value.get_secret_value()
        elif isinstance(value, str) and "://" in value:
            addresses += ADDRESSES.split(value)
    for header in settings.otel_exporter_otlp_headers.split(","):
        name, _, value = header.partition("=")
        for word in unquote(value).split():
            if _SECRET_HEADER.search(name) or _KEY.fullmatch(word):
                yield word
                with contextlib.suppress(ValueError):  # neither base64 nor text
                    login = b64decode(word, validate=True).decode()
                    yield from {login, login.partition(":")[2]}
    for address in addresses:
        with contextlib.suppress(ValueError):  # of a proxy
            yield from _logins(address)


def _logins(address: str) -> Iterator[str]:
    parts = urlsplit(address)
    user, password = parts.username or "", parts.password or ""
    for text in {password, user if _KEY.fullmatch(user) else ""}:
        yield from {text, unquote(text)}
    if user or password:  # as in a header
        yield b64encode(unquote(f"{user}:{password}").encode()).decode()
    for text in parse_qs(parts.query).get("password", []):
        yield from {text, unquote(text)}  # redis-py decodes it twice
