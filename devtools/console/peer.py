"""Whether another user of the machine has the other end of a connection, as Linux tells.

sock_diag(7) finds one socket in some microseconds. /proc/net/tcp can take 30 ms, so that a hundred
connections a second would occupy the console; it is read only if the kernel has no sock_diag.
"""

import contextlib
import os
import re
import socket
import struct
import sys
from pathlib import Path
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
# proc_pid_net(5); a client with an IPv6 socket is in the second.
_TABLES = {Path("/proc/net/tcp"): "", Path("/proc/net/tcp6"): "0000000000000000FFFF0000"}
# State, queues, timer, retransmissions, user, timeout, inode.
_ROW = re.compile(r" (\w+) \S+ \S+ \S+ +([0-9]+) +[0-9]+ +([0-9]+)")
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
    is None. So does any if Linux does not tell. False on a system that never does.
    """
    if peer is None:
        return True
    if not hasattr(socket, "AF_NETLINK"):
        return False
    with contextlib.suppress(OSError):
        found = _find(peer, server)
        if not found and not _find(server, peer):  # the kernel's module is missing
            found = _listed(peer, server)
        if found and found.state != _TCP_LISTEN and found.inode:
            return found.user not in {_ROOT, os.getuid()}
    return True


def _listed(local: Address, remote: Address) -> Socket | None:
    """The connected socket in the kernel's tables. Raises OSError if they cannot be read."""
    for table, prefix in _TABLES.items():
        ends = f" {prefix}{_hex(local)} {prefix}{_hex(remote)}"
        if row := _ROW.match(table.read_text("ascii").partition(ends)[2]):
            return Socket(int(row[1], 16), int(row[2]), int(row[3]))
    return None


def _hex(address: Address) -> str:
    host = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{host:08X}:{address[1]:04X}"


def _find(local: Address, remote: Address) -> Socket | None:
    """The socket at `local` connected to `remote`, or else the one that listens at `local`."""
    sockets = _SOCKETS.pack(
        local[1], remote[1], socket.inet_aton(local[0]), socket.inet_aton(remote[0]), _NO_COOKIE
    )
    size = _REQUEST.size + len(sockets)
    protocol = socket.AF_INET, socket.IPPROTO_TCP, 0
    request = _REQUEST.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0, *protocol, _ANY_STATE)
    with contextlib.suppress(OSError, struct.error), _netlink() as system:
        system.setblocking(False)  # the reply is there when `send` returns
        system.send(request + sockets)
        kind, *found = _REPLY.unpack_from(system.recv(_REPLY_BYTES_MAX))
        return Socket(*found) if kind == _SOCK_DIAG_BY_FAMILY else None
    return None


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
