"""Client addresses behind trusted proxies."""

from ipaddress import ip_network

import pytest
from falcon.testing import create_req

from services.auth_api.addresses import client_address


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "address"),
    [
        ("", "127.0.0.1", "9.9.9.9", "127.0.0.1"),
        ("10.0.0.0/8", "127.0.0.1", "9.9.9.9", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("127.0.0.1", "127.0.0.1", "1.1.1.1, 9.9.9.9", "9.9.9.9"),
        ("127.0.0.1 10.0.0.0/8", "127.0.0.1", "1.1.1.1,9.9.9.9, 10.0.0.7", "9.9.9.9"),
        ("127.0.0.1 10.0.0.0/8", "127.0.0.1", "10.0.0.8,10.0.0.7", "10.0.0.8"),
        ("127.0.0.1 ::1", "127.0.0.1", "2001:db8::1", "2001:db8::1"),
        # A service that listens on `::` sees IPv4 peers so.
        ("127.0.0.1", "::ffff:127.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("127.0.0.1 10.0.0.0/8", "127.0.0.1", "9.9.9.9:4711, 10.0.0.7:80", "9.9.9.9"),
        ("127.0.0.1", "127.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1", "9.9.9.9, unknown", "127.0.0.1"),
    ],
)
def test_only_trusted_proxies_set_the_client_address(
    proxies: str, peer: str, forwarded: str | None, address: str
) -> None:
    """X-Forwarded-For is read from the right, up to the first untrusted address."""
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    req = create_req(headers=headers, remote_addr=peer)
    assert client_address(req, [ip_network(name) for name in proxies.split()]) == address
