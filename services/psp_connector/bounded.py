"""HTTP calls with a total timeout and a maximum size, without redirects.

A read timeout restarts with each byte, so a server that sends one now and then would hold a thread
forever, even within a header. A watchdog shuts down the socket of an overdue call, which then fails
like any lost connection.
"""

import contextlib
import http.client
import ipaddress
import socket
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import structlog
from opentelemetry.trace import Span, SpanKind, StatusCode
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import parse_url

from services.common import tracing
from services.common.settings import SettingsError, masked

# Watchdog interval: a call may exceed its timeout by this.
_WATCH_SECONDS = 0.2
_RESPONSE_BYTES_MAX = 1024 * 1024
# Compressed bytes per read; they may unpack to a thousand times as many.
_CHUNK_BYTES = 16 * 1024

_log = structlog.get_logger()


class BoundedSession(requests.Session):
    """A thread-safe session; a call takes at most `seconds_max` in total."""

    def __init__(self, url: str, seconds_max: float, connections_max: int) -> None:
        super().__init__()
        # No netrc, whose `default` login would replace the PSP's key; no proxy for the loopback.
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.proxies = proxies_for(url)
        for proxy in self.proxies.values():
            _log.info("PSP calls use a proxy", proxy=masked(proxy))
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
        span = _client_span(request)
        with tracing.use(span):
            if traceparent := tracing.traceparent(span):
                request.headers["traceparent"] = traceparent
            try:
                response = super().send(request, **kwargs | {"stream": True})
                _read(response)
            finally:
                self._calls.pop(threading.get_ident(), None)
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 400:
                span.set_status(StatusCode.ERROR, f"HTTP {response.status_code}")
            return response

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: a redirect would send the payment elsewhere, each time with a new timeout."""

    def watch(self, connection: Any) -> None:
        """Starts the timeout of this thread's call on `connection`, unless it is running."""
        caller = threading.get_ident()
        deadline, _ = self._calls.get(caller, (time.monotonic() + self._seconds_max, None))
        # urllib3's own transport, for TLS within the TLS of a proxy, cannot be shut down.
        self._calls[caller] = (deadline, getattr(connection, "socket", connection))

    def _watch(self) -> None:
        while True:
            time.sleep(_WATCH_SECONDS)
            now = time.monotonic()
            for deadline, connection in list(self._calls.values()):
                if now > deadline:
                    # Ignores any error: without this thread no call would be bounded.
                    with contextlib.suppress(Exception):
                        connection.shutdown(socket.SHUT_RDWR)


def _read(response: requests.Response) -> None:
    """Reads the body into `response.content`; refuses more than 1 MiB."""
    content = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        content += chunk
        if len(content) > _RESPONSE_BYTES_MAX:
            response.close()
            raise requests.ConnectionError("the response is too long")
    # As requests does itself without `stream`.
    response._content = bytes(content)  # noqa: SLF001


def _client_span(request: requests.PreparedRequest) -> Span:
    parts = urlsplit(request.url or "")
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    attributes: dict[str, str | int] = {
        "http.request.method": request.method or "",
        "server.address": parts.hostname or "",
        "server.port": port,
        "url.full": f"{parts.scheme}://{parts.hostname}:{port}{parts.path}",
    }
    return tracing.span(f"{request.method} {parts.path}", SpanKind.CLIENT, attributes)


def proxies_for(url: str) -> dict[str, str]:
    """The user's proxy (`https_proxy`, `no_proxy`, ...) for a URL; none for the loopback.

    Raises SettingsError unless it is an http:// or https:// address.
    """
    parts = urlsplit(url)
    if _is_loopback(parts.hostname or ""):
        return {}
    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return {}
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    with contextlib.suppress(ValueError):
        # requests reads the login with urlsplit, which takes less than parse_url.
        is_valid = urlsplit(proxy).hostname and parse_url(proxy).host
        if proxy.startswith(("http://", "https://")) and is_valid:
            return {parts.scheme: proxy}
    rule = "must be an address like http://host:3128"
    raise SettingsError([f"the proxy for PSP_URL is {masked(proxy)!r}: {rule}"])


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        """Reads up to the final response (RFC 9110, 15.2); http.client skips only status 100.

        The next call on this connection would read the final one as its own.
        """
        super().begin()
        while http.HTTPStatus.SWITCHING_PROTOCOLS < self.status < http.HTTPStatus.OK:
            self.headers = None  # type: ignore[assignment]  # else `begin` does nothing
            super().begin()
        if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.will_close = True


def _pool_class(base: type[HTTPConnectionPool], session: BoundedSession) -> Any:
    class Connection(base.ConnectionCls):  # type: ignore[misc, name-defined]
        response_class = _Response

        def request(self, *args: Any, **kwargs: Any) -> None:
            super().request(*args, **kwargs)
            # Not later: after the last response on a connection, only the response has the socket.
            session.watch(self.sock)

        def _tunnel(self) -> None:
            session.watch(self.sock)
            super()._tunnel()

    return type("Pool", (base,), {"ConnectionCls": Connection})
