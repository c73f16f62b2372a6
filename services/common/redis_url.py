"""The settings of Redis.

Without redis-py: preflight reads them at every start of the stack, and importing it would take a
third of its time.
"""

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from services.common.fields import readable_file
from services.common.settings import FILE_ALLOWED, Settings

_RULE = "like redis://host:6379/0, rediss://… for TLS, or unix:///path"
# redis-py accepts any constructor argument in the URL, overriding `redis_client.connect`:
# `protocol` or `decode_responses` would change every reply, `ssl_cert_reqs` disable verification.
OPTIONS = {
    "db": r"[0-9]{1,4}",
    "username": r".+",
    "password": r".+",
    "client_name": r"[!-~]{1,64}",
    "ssl_ca_certs": r"/.+",
    "ssl_certfile": r"/.+",
    "ssl_keyfile": r"/.+",
}


def _redis_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        in_range = parts.port is None or parts.port > 0
        (parts.hostname or "").encode("idna")  # as for its address; may raise UnicodeError
    except ValueError:
        raise ValueError(_RULE) from None
    named = parts.hostname or (parts.scheme == "unix" and parts.path)
    numbered = parts.scheme == "unix" or re.fullmatch(r"/?|/[0-9]{1,4}", parts.path)
    schemed = url.startswith(("redis://", "rediss://", "unix://"))  # redis-py takes no upper case
    if not (schemed and in_range and named and numbered):
        raise ValueError(_RULE)
    options = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in options]
    if set(names) - OPTIONS.keys() or len(names) > len(set(names)):
        raise ValueError(f"{_RULE}; the options after ? are {', '.join(OPTIONS)}, each once")
    files = {name: value for name, value in options if name.startswith("ssl_")}
    for name, value in options:
        if not re.fullmatch(OPTIONS[name], value):
            raise ValueError(f"{_RULE}; {name} must match {OPTIONS[name]}")
        if name in files:
            _check_file(name, value, parts.scheme)
    if files:
        _load(files.get("ssl_ca_certs"), files.get("ssl_certfile"), files.get("ssl_keyfile"))
    return url


def _check_file(name: str, path: str, scheme: str) -> None:
    if scheme != "rediss":
        raise ValueError(f"{_RULE}; {name} is for rediss:// only")
    try:
        readable_file(Path(path))
    except ValueError as error:
        raise ValueError(f"{_RULE}; {name} is the absolute path of {error}") from None


def _load(authority: str | None, certificate: str | None, key: str | None) -> None:
    """Loads the files as redis-py does, which would fail to connect, or ask for a passphrase."""
    import ssl  # noqa: PLC0415 - slow to import, and rarely needed

    def passphrase() -> str:
        raise ValueError(f"{_RULE}; the key of ssl_certfile must have no passphrase")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if key and not certificate:
        raise ValueError(f"{_RULE}; ssl_keyfile belongs to an ssl_certfile")
    try:
        if authority:
            context.load_verify_locations(authority)
    except OSError:
        raise ValueError(f"{_RULE}; ssl_ca_certs has no certificate in PEM format") from None
    try:
        if certificate:
            context.load_cert_chain(certificate, key, passphrase)
    except OSError:
        pair = "ssl_certfile and ssl_keyfile are a certificate and its private key in PEM format"
        raise ValueError(f"{_RULE}; {pair}") from None


def _redis_urls(text: str, info: ValidationInfo) -> str:
    if not info.data.get("redis_cluster"):
        return _redis_url(text)
    first, *others = (urlsplit(_redis_url(url)) for url in text.split(","))
    if first.scheme == "unix" or first.path not in {"", "/", "/0"} or "db=" in first.query:
        raise ValueError("redis:// or rediss:// without a database, which no cluster has")
    user = first.netloc.rpartition("@")[0]
    for other in others:
        # The same but for host and port.
        if first != other._replace(netloc=first.netloc) or user != other.netloc.rpartition("@")[0]:
            raise ValueError("start nodes that differ in host and port only, separated by commas")
    return text


RedisUrl = Annotated[str, AfterValidator(_redis_urls), FILE_ALLOWED]


class RedisSettings(Settings):
    """Settings of a process or command that uses Redis."""

    redis_cluster: bool = Field(
        default=False,
        description="1: REDIS_URL is a comma-separated list of a Redis Cluster's start nodes",
    )
    redis_url: RedisUrl = Field(description="where transactions are kept and queued")
    partitions: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1, description="parts of the data, each with a queue; fixed by the first start"
    )

    redis_replicas_min: Annotated[int, Field(ge=0, le=10)] = Field(
        default=0, description="replicas that must have a transaction before it is accepted"
    )

    @model_validator(mode="after")
    def _has_partitions(self) -> Self:
        if self.redis_cluster and self.partitions == 1:
            raise ValueError(
                "PARTITIONS=1: must be more with REDIS_CLUSTER=1, such as 16: "
                "each partition is on one node"
            )
        return self
