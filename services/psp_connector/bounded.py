"""HTTP calls that are bounded as a whole, however their answers come.

A read's timeout begins anew with each byte: a server that sends one now and then would hold a
thread for ever, in the middle of a header too. So a watchdog shuts down the socket of a call whose
time is over, and the call ends as on any lost connection.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

from services.common.settings import SettingsError, masked

# How late a call may be cut off.
_LOOK_SECONDS = 0.2


class BoundedSession(requests.Session):
    """A session for several threads; a call, sent and answered, takes `seconds_max` at the most."""

    def __init__(self, url: str, seconds_max: float, connections_max: int) -> None:
        super().__init__()
        # No netrc, whose `default` login would replace the PSP's key, and no proxy to the loopback.
        self.trust_env = False
        self.proxies = proxies_for(url)
        self._seconds_max = seconds_max
        self._calls: dict[int, tuple[float, socket.socket]] = {}
        adapter = HTTPAdapter(pool_maxsize=connections_max)
        managers = [adapter.poolmanager, *map(adapter.proxy_manager_for, self.proxies.values())]
        for manager in managers:
            manager.pool_classes_by_scheme = {
                "http": _pool_class(HTTPConnectionPool, self),
                "https": _pool_class(HTTPSConnectionPool, self),
            }
        self.mount("http://", adapter)
        self.mount("https://", adapter)
        threading.Thread(target=self._watch, name="psp-watchdog", daemon=True).start()

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        try:
            return super().send(request, **kwargs)
        finally:
            self._calls.pop(threading.get_ident(), None)

    def is_sent(self, on: socket.socket) -> None:
        """Is told by a connection that this thread's call waits for its answer there."""
        self._calls[threading.get_ident()] = (time.monotonic() + self._seconds_max, on)

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            for until, connection in list(self._calls.values()):
                if now > until:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)


def proxies_for(url: str) -> dict[str, str]:
    """The user's proxy (`https_proxy`, `no_proxy`, ...) for this address; none to the loopback.

    Raises:
        SettingsError: the proxy is neither http:// nor https://.
    """
    parts = urlsplit(url)
    if _is_loopback(parts.hostname or ""):
        return {}
    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return {}
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise SettingsError([f"the proxy for PSP_URL is {masked(proxy)!r}: must be http or https"])
    return {parts.scheme: proxy}


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _pool_class(base: type[HTTPConnectionPool], session: BoundedSession) -> Any:
    class Connection(base.ConnectionCls):  # type: ignore[misc, name-defined]
        def request(self, *args: Any, **kwargs: Any) -> None:
            super().request(*args, **kwargs)
            # Now: when the answer is the connection's last, only its reader knows the socket.
            session.is_sent(self.sock)

    return type("Pool", (base,), {"ConnectionCls": Connection})
