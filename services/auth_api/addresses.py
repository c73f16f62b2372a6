"""Client addresses, by which failed logins are limited."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import falcon

from services.auth_api.settings import Network

# As some load balancers write a hop in X-Forwarded-For.
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+")


def client_address(req: falcon.Request, proxies: Sequence[Network]) -> str:
    """The client's address: the last hop that is not one of the trusted `proxies`.

    Each proxy appends its peer's address to X-Forwarded-For, so entries left of the first untrusted
    hop may be forged. If a hop is not an address, the client is the proxy that sent it.
    """
    client: str = req.remote_addr
    if proxies:
        for hop in reversed((req.get_header("X-Forwarded-For") or "").split(",")):
            peer, address = _parse(client), _parse(hop)
            if not (peer and address and any(peer in network for network in proxies)):
                break
            client = str(address)
    return client


@lru_cache(1024)
def address_group(address: str) -> str:
    """The addresses one machine can choose from: all of the loopback, or an IPv6 /64."""
    ip = _parse(address)
    if ip is None:
        return address
    if ip.is_loopback:
        return "loopback"
    return str(ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    """Parses an address without port and zone, an IPv4-mapped one as IPv4; None if invalid."""
    text = address.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2] or ""
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
