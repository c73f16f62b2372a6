"""Finds the user at the other end of a loopback connection (Linux)."""

import contextlib
import os
import re
import socket
import sys
from pathlib import Path

# proc_pid_net(5); a client with an IPv6 socket is in the second.
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_MAPPED = "0000000000000000FFFF0000"
# State, queues, timer, retransmissions, user, timeout, inode: 0 after the program closed it.
_USER = re.compile(r" \w+ \S+ \S+ \S+ +([0-9]+) +[0-9]+ +([0-9]+)")
_ROOT = 0


def is_foreign(peer: tuple[str, int] | None, own: tuple[str, int]) -> bool:
    """Whether another user has the socket at `peer`, connected to `own`. Both are IPv4.

    Root is allowed: it can do anything, and relays connections from a browser outside a virtual
    machine. A closed connection counts as foreign: Linux lists it as root's or not at all, and
    `peer` is None. False if the system does not list `own`, so that the user is unknown.
    """
    if peer is None:
        return True
    tells = False
    for table, prefix in zip(TABLES, ("", _MAPPED), strict=True):
        with contextlib.suppress(OSError):
            text = table.read_text("ascii")
            tells = tells or _text(own) in text
            _, _, rest = text.partition(f" {prefix}{_text(peer)} {prefix}{_text(own)}")
            if found := _USER.match(rest):
                return found[2] == "0" or int(found[1]) not in {_ROOT, os.getuid()}
    return tells


def _text(address: tuple[str, int]) -> str:
    host = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{host:08X}:{address[1]:04X}"
