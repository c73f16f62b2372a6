"""The ports and the state folder of a checkout's stack, for its start and for its clients.

Preflight writes `chosen_port` to `environment` in the state folder, which the processes source.
Clients use `running_port` or `router_url`: the caller's value, then the recorded one, then the
default.
"""

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from devtools import envfile
from devtools.catalog import CONSOLE, LISTENERS, REDIS_NODES, SERVICES

DEFAULT_PORT = 8000
AUTO = "auto"

BLOCK = max(service.port_offset for service in LISTENERS.values()) + 1
NODES = len(REDIS_NODES)
_LOOPBACK, _ALL = "127.0.0.1", "0.0.0.0"
BUS_OFFSET = 2  # as in services/redis/node.sh
_LOWEST = 1024  # lower ports need root
CLUSTER_BLOCK = SERVICES["redis"].port(0, NODES - 1) + BUS_OFFSET + 1
HIGHEST = 65_536 - CLUSTER_BLOCK

_REDIS_SETTINGS = ("REDIS_CLUSTER", "PARTITIONS", "REDIS_REPLICAS_MIN")

# `auto` picks one of 240 blocks: below 32768, where no system puts outgoing connections, and 50
# ports each, enough for a second to a fifth connector at +13, +23, ...
_AUTO_FIRST = 20_000
_AUTO_STEP = 50
_AUTO_BLOCKS = 240


class AddressError(ValueError):
    """PLATFORM_PORT is neither a port nor `auto`, or the router's address has a user or a query."""


def listeners(first_port: int, environ: Mapping[str, str]) -> dict[str, int]:
    """The stack's ports by process, with cluster bus ports; without the console's if it is off."""
    ports = {
        service.name: service.port(first_port)
        for service in LISTENERS.values()
        if service is not CONSOLE or environ.get("CONSOLE") != "off"
    }
    if is_cluster(environ):
        for name, port in zip(REDIS_NODES, node_ports(first_port), strict=True):
            ports |= {name: port, f"{name} bus": port + BUS_OFFSET}
    return ports


def clashes(first_port: int, environ: Mapping[str, str]) -> list[str]:
    """A line for each port or route that several processes would have, as after a merge."""
    names = {("route", "/health"): ["router"]}
    for name, port in listeners(first_port, environ).items():
        names.setdefault(("port", str(port)), []).append(name)
    for service in SERVICES.values():
        if service.route:
            names.setdefault(("route", f"/{service.route}"), []).append(service.name)
    keys = {"port": "port_offset", "route": "route"}
    return [
        f"{' and '.join(sharing)} have the same {kind}, {value}: is one a copy? else change"
        f" {keys[kind]} in the service.toml of one, then `new sync`"
        for (kind, value), sharing in names.items()
        if len(sharing) > 1
    ]


def node_ports(first_port: int, count: int = NODES) -> list[int]:
    """The ports of the nodes of the stack's Redis Cluster; the first is that of a single Redis."""
    return [SERVICES["redis"].port(first_port, number) for number in range(count)]


def has_own_redis(environ: Mapping[str, str]) -> bool:
    """Whether the stack starts its own Redis or Redis Cluster."""
    return not (environ.get("REDIS_URL") or environ.get("REDIS_URL_FILE"))


def is_cluster(environ: Mapping[str, str]) -> bool:
    """Whether the stack starts its own Redis Cluster."""
    return has_own_redis(environ) and environ.get("REDIS_CLUSTER") in {"1", "true"}


def redis_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings of the stack's own Redis, which preflight records for other shells."""
    if not has_own_redis(environ):
        return {}
    return {name: environ[name] for name in _REDIS_SETTINGS if environ.get(name)}


def running_redis(state: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that the stack's own Redis was last started with; none for an external Redis."""
    values = recorded(state)
    is_own = has_own_redis(environ)
    return {name: values[name] for name in _REDIS_SETTINGS if is_own and name in values}


def host_of(name: str, environ: Mapping[str, str]) -> str:
    """The address that a process listens on; preflight refuses any other HTTP_HOST."""
    is_http = name in SERVICES and name != "redis"  # the console stays on the loopback, too
    return _ALL if is_http and environ.get("HTTP_HOST") == _ALL else _LOOPBACK


def is_free(port: int, host: str = _LOOPBACK) -> bool:
    """Whether the port is free at the loopback and at this IPv4 address."""
    # At both: on macOS a server may listen at 0.0.0.0 beside another one at 127.0.0.1.
    return all(_can_listen(address, port) for address in {_LOOPBACK, host})


def _can_listen(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_block(first: int) -> int | None:
    """The first port of a free block at `first` + 100, + 200, …; None after 50 tries.

    It is free at all addresses, and has room for a Redis Cluster.
    """
    for candidate in range(first + 100, min(first + 5100, HIGHEST + 1), 100):
        if all(is_free(port, _ALL) for port in range(candidate, candidate + CLUSTER_BLOCK)):
            return candidate
    return None


def state_folder(environ: Mapping[str, str]) -> Path:
    """The state folder."""
    return Path(environ.get("PLATFORM_STATE") or ".state")


def chosen_port(environ: Mapping[str, str]) -> int:
    """The router's port of a stack started with these variables.

    Raises:
        AddressError: PLATFORM_PORT is wrong.
    """
    port = _checked(environ)
    return derived_port(state_folder(environ)) if port == AUTO else int(port or DEFAULT_PORT)


def running_port(environ: Mapping[str, str]) -> int:
    """The router's port of the stack that a client with these variables uses.

    A number in PLATFORM_PORT wins, else the port of the last start, which includes `.env` and
    `auto`.

    Raises:
        AddressError: PLATFORM_PORT is wrong.
    """
    port = _checked(environ)
    if port and port != AUTO:
        return int(port)
    return recorded_port(state_folder(environ)) or chosen_port(environ)


def router_url(environ: Mapping[str, str]) -> str:
    """The router's URL for a client. PLATFORM_URL wins.

    Never `localhost`, which may resolve to ::1, where another program may use the same port.

    Raises:
        AddressError: PLATFORM_PORT is wrong, or PLATFORM_URL has a user or a query.
    """
    url = environ.get("PLATFORM_URL") or f"http://127.0.0.1:{running_port(environ)}"
    if {"@", "?", "#"}.intersection(url):
        # A user name in it would replace the token, and messages show the address.
        raise AddressError("PLATFORM_URL (or --url): must be an address without user and query")
    return url.rstrip("/")


def derived_port(state: Path) -> int:
    """The first port of the `auto` block, derived from the folder's real path."""
    name = os.fsencode(os.path.realpath(state))
    number = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
    return _AUTO_FIRST + _AUTO_STEP * (number % _AUTO_BLOCKS)


def recorded_port(state: Path) -> int | None:
    """The router's port at the last start; None without a valid record."""
    text = recorded(state).get("PLATFORM_PORT", "")
    return int(text) if _is_port(text) else None


def recorded(state: Path) -> Mapping[str, str]:
    """The variables in the record of the last start."""
    return envfile.read(state / "environment").values


def _checked(environ: Mapping[str, str]) -> str:
    text = environ.get("PLATFORM_PORT", "")
    if text and text != AUTO and not _is_port(text):
        raise AddressError(
            f"PLATFORM_PORT={text[:20]!r}: must be a number from {_LOWEST} to {HIGHEST}, or"
            f" {AUTO}, which takes a block of ports by the checkout's path"
        )
    return text


def _is_port(text: str) -> bool:
    is_number = text.isascii() and text.isdigit() and len(text) <= 5
    return is_number and _LOWEST <= int(text) <= HIGHEST
