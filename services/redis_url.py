"""The setting that says where Redis is.

Apart from `services/store.py`, because preflight checks it at every start of the stack, which all
processes wait for, and `import redis` is a third of preflight's time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

_RULE = "like redis://host:6379/0, rediss://… for TLS, or unix:///path"
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def _redis_url(url: str) -> str:
    """Tries all that can be tried without a connection: a service must not find out later."""
    try:
        parts = urlsplit(url)
        in_range = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(_RULE) from None
    named = parts.hostname or (parts.scheme == "unix" and parts.path)
    numbered = parts.scheme == "unix" or re.fullmatch(r"/?|/[0-9]{1,4}", parts.path)
    if parts.scheme not in {"redis", "rediss", "unix"} or not (in_range and named and numbered):
        raise ValueError(_RULE)
    if parts.query:
        _check_options(url, parts.query)
    return url


def _check_options(url: str, query: str) -> None:
    options = dict(parse_qsl(query))
    for name in _FILES:
        path = options.get(name)
        if path and not (path.startswith("/") and Path(path).is_file()):
            raise ValueError(f"{_RULE}; {name} is the whole path of a file, from / on")
    import redis  # noqa: PLC0415

    from services import store  # noqa: PLC0415

    try:
        store.connect(url, timeout_seconds=1).connection_pool.make_connection()
    except (TypeError, ValueError, redis.RedisError):
        rule = "the options behind ? are not those of redis-py, or ssl_… is without rediss://"
        raise ValueError(f"{_RULE}; {rule}") from None


RedisUrl = Annotated[str, AfterValidator(_redis_url)]
