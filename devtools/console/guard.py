"""Refuses requests except from the console's own page or a program on this machine.

A web page elsewhere in the developer's browser can send requests to loopback ports. It cannot send
another Host than its own (DNS rebinding), cannot hide its Origin from a WebSocket or a POST, and
cannot forge Sec-Fetch-Site. Changes go through NiceGUI's WebSocket, where each message
must name the page's id: 122 random bits, known only to that page. Connections of other users of the
machine are closed at once where the system reports their owner (Linux): idle ones would take the
places of the console's own.

Only 127.0.0.1 is served. `localhost` may resolve to ::1, too, where any user can listen at the same
port: a page from there, which then closed it, would pass for the console's own.
"""

import asyncio
import re

from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from devtools.console.peer import is_foreign

_HOST = re.compile(r"127\.0\.0\.1(:[0-9]{1,5})?")
_OTHER_NAME = re.compile(r"(?:localhost|platform\.localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_POLICY_VIOLATION = 1008  # WebSocket close code, RFC 6455
# The longest name of a file. The console's own paths have less than 100.
_PATH_BYTES_MAX = 255
# The page uses a WebSocket first. engineio answers 500 to a POST to a session that was just closed.
# Elsewhere below the folder it answers a WebSocket as it would a request.
_SOCKETS, _SOCKET = "/_nicegui_ws/", "/_nicegui_ws/socket.io/"
_HEADERS = {
    # NiceGUI's own scripts are inline and compile Vue templates; nothing is loaded from elsewhere.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class OwnUserProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # of which there are two
    """uvicorn's HTTP protocol, which WebSockets begin with; closes another user's connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Checks the user of a new connection."""
        super().connection_made(transport)
        if is_foreign(transport.get_extra_info("peername"), transport.get_extra_info("sockname")):
            transport.abort()


class Guard:
    """ASGI middleware for HTTP and WebSocket requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards or refuses a request: 421 for its Host, 403 for its origin, 400 for its path.

        A GET of another name of the loopback is redirected.
        """
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        status = self._refusal(scope.get("method"), scope["path"], headers)
        other_name = _OTHER_NAME.fullmatch(headers.get("host", ""))
        if not status:
            await self._app(scope, receive, _with_headers(send))
        elif other_name and scope.get("method") == "GET":
            query = scope["query_string"].decode("latin-1")
            netloc = f"127.0.0.1{other_name[1] or ''}"
            url = URL(scheme="http", netloc=netloc, path=scope["path"], query=query)
            await RedirectResponse(url)(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            refused = PlainTextResponse("The console serves only its own page.", status)
            await refused(scope, receive, send)

    def _refusal(self, method: str | None, path: str, headers: Headers) -> int:
        host = headers.get("host", "")
        if not _HOST.fullmatch(host):
            return 421
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return 403
        is_other_site = headers.get("sec-fetch-site", "none") in {"cross-site", "same-site"}
        # A link to the console may be followed from anywhere.
        is_link = (
            method == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest", "document") == "document"  # not a frame
        )
        if is_other_site and not is_link:
            return 403
        if path.startswith(_SOCKETS) and (method or path != _SOCKET):  # a WebSocket has no method
            return 400
        # NiceGUI answers 500 to what cannot be the name of a file.
        return 400 if "\0" in path or len(path.encode()) > _PATH_BYTES_MAX else 0


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return send_with_headers
