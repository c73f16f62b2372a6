"""Whether another user of the machine has the other end of a connection, by Linux' sock_diag(7).

It finds one socket in some microseconds. /proc/net/tcp can take 30 ms, so a hundred connections a
second would occupy the console.
"""

import contextlib
import os
import socket
import struct
from typing import NamedTuple

Address = tuple[str, int]

# The socket module has no names for these. TCP_LISTEN is in netinet/tcp.h.
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _TCP_LISTEN = 4, 20, 1, 10
_ANY_STATE, _NO_COOKIE = 0xFFFFFFFF, b"\xff" * 8
# nlmsghdr with the begin of inet_diag_req_v2; the rest of that: inet_diag_sockid.
_REQUEST, _SOCKETS = struct.Struct("=IHHIIBBBxI"), struct.Struct("!HH4s12x4s16x8s")
# The type in nlmsghdr, then state, user and inode in inet_diag_msg.
_REPLY = struct.Struct("=4xH11xB62xII")
_REPLY_BYTES_MAX = 4096
_ROOT = 0


class Socket(NamedTuple):
    """What Linux tells of a TCP socket."""

    state: int
    user: int
    inode: int
    """0 after the program closed it."""


def is_foreign(peer: Address | None, server: Address) -> bool:
    """Whether another user has the socket at `peer`, connected to `server`. Both are IPv4.

    Root is allowed: it can do anything, and relays connections from a browser outside a virtual
    machine. A closed connection counts as foreign: Linux calls it root's or finds none, and `peer`
    is None. False if the system does not find `server`, so that the user is unknown.
    """
    if peer is None:
        return True
    found = _find(peer, server)
    if found and found.state != _TCP_LISTEN:
        return not found.inode or found.user not in {_ROOT, os.getuid()}
    return _find(server, peer) is not None


def _find(local: Address, remote: Address) -> Socket | None:
    """The socket at `local` connected to `remote`, or else the one that listens at `local`."""
    sockets = _SOCKETS.pack(
        local[1], remote[1], socket.inet_aton(local[0]), socket.inet_aton(remote[0]), _NO_COOKIE
    )
    size = _REQUEST.size + len(sockets)
    protocol = socket.AF_INET, socket.IPPROTO_TCP, 0
    request = _REQUEST.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0, *protocol, _ANY_STATE)
    # Not on macOS.
    with (
        contextlib.suppress(OSError, AttributeError),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as system,
    ):
        system.setblocking(False)  # the reply is there when `send` returns
        system.send(request + sockets)
        kind, *found = _REPLY.unpack_from(system.recv(_REPLY_BYTES_MAX))
        return Socket(*found) if kind == _SOCK_DIAG_BY_FAMILY else None
    return None
