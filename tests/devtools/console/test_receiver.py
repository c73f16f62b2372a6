"""The OTLP receiver and the guard, with requests from programs and foreign web pages."""

import gzip
import os
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from devtools.console import peer, receiver
from devtools.console.guard import Guard, OwnUserProtocol
from devtools.console.spans import SpanStore
from tests import support
from tests.devtools.console.traces import payment

ID = str(uuid.UUID(int=7))
PROTOBUF = {"Content-Type": "application/x-protobuf"}
SITE, MODE, DEST = (f"Sec-Fetch-{name}" for name in ("Site", "Mode", "Dest"))
LINK = {SITE: "cross-site", MODE: "navigate"}
# A WebSocket's handshake (RFC 6455).
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
UPGRADE["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpanStore:
    return SpanStore(tmp_path_factory.mktemp("spans") / "s")


@pytest.fixture(scope="module")
def client(store: SpanStore) -> Iterator[httpx.Client]:
    """The console's routes behind its guard, with a page and a WebSocket."""

    async def page(_request: Request) -> Response:
        return PlainTextResponse("page")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    port = support.free_ports(1)
    app = Starlette(
        routes=[
            *receiver.routes(store),
            Route("/", page, methods=["GET", "POST"]),
            WebSocketRoute("/{path:path}", socket),
        ],
        middleware=[Middleware(Guard)],
    )
    server = uvicorn.Server(uvicorn.Config(app, port=port, http=OwnUserProtocol, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    support.wait_until(lambda: server.started, what="the server")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as made:
        yield made
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize(("encoding", "number"), [("identity", "nan"), ("gzip", "inf")])
def test_spans_are_received_and_found(
    client: httpx.Client, store: SpanStore, encoding: str, number: str
) -> None:
    """By transaction id; an unknown id has none. A number that JSON lacks is shown as text."""
    trace = payment(transaction := str(uuid.uuid4()))
    span = trace.request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="share").value.double_value = float(number)
    body = trace.request.SerializeToString()
    body = gzip.compress(body) if encoding == "gzip" else body
    headers = PROTOBUF | {"Content-Encoding": encoding}
    response = client.post("/v1/traces", content=body, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (200, receiver.PROTOBUF)
    spans = store.of_transaction(transaction)
    assert [span.attributes.get("share") for span in spans] == [number, *[None] * 5]
    assert store.of_transaction(ID) == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"", PROTOBUF | {"Content-Encoding": "br"}, 415),
        (b"\xff\xff\xff", PROTOBUF, 400),
        (b"no gzip", PROTOBUF | {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"x" * 100, mtime=0)[:-9], PROTOBUF | {"Content-Encoding": "gzip"}, 400),
        (b"x" * (receiver.BODY_BYTES_MAX + 1), PROTOBUF, 413),
        (
            gzip.compress(b"\0" * (receiver.BODY_BYTES_MAX + 1), mtime=0),
            PROTOBUF | {"Content-Encoding": "gzip"},
            413,
        ),
    ],
    ids=["JSON", "brotli", "no protobuf", "no gzip", "cut off", "long", "long unpacked"],
)
def test_invalid_exports_are_refused(
    client: httpx.Client, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Bodies are bounded, even if they are small only when compressed."""
    assert client.post("/v1/traces", content=body, headers=headers).status_code == status


def test_an_exporter_that_ends_while_it_sends_logs_nothing(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter killed while sending causes no traceback."""
    head = "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.sendall(f"{head}Content-Length: 100\r\n\r\nx".encode())
    time.sleep(0.2)
    assert client.get("/health").status_code == 200
    assert [one for one in caplog.records if one.exc_info] == []


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"Host": "127.0.0.1:8006", "Origin": "http://127.0.0.1:8006"}, 200),
        ("POST", {"Host": "localhost:8006", "Origin": "http://localhost:8006"}, 421),
        ("GET", LINK, 200),
        ("GET", LINK | {DEST: "iframe"}, 403),
        ("GET", {"Host": "evil.example:8006"}, 421),
        ("GET", {"Host": "127.0.0.1.evil.example"}, 421),
        ("POST", {"Origin": "http://evil.example"}, 403),
        ("POST", {"Origin": "http://127.0.0.1:9999"}, 403),
        ("POST", {"Origin": "https://127.0.0.1:8006"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("GET", {SITE: "cross-site", MODE: "no-cors"}, 403),
        ("GET", {SITE: "same-site", MODE: "cors"}, 403),
        ("POST", LINK, 403),
        ("GET", UPGRADE | {"Host": "127.0.0.1:8006", "Origin": "http://127.0.0.1:8006"}, 101),
        ("GET", UPGRADE | {"Host": "localhost:8006", "Origin": "http://localhost:8006"}, 403),
        ("GET", UPGRADE | {"Origin": "http://evil.example"}, 403),
        ("GET", UPGRADE | {"Origin": "null"}, 403),
    ],
)
def test_foreign_pages_are_refused(
    client: httpx.Client, method: str, headers: dict[str, str], status: int
) -> None:
    """By Host (DNS rebinding), Origin and Sec-Fetch-Site.

    Browsers let any page open a WebSocket; only its Origin tells.
    """
    with client.stream(method, "/", headers=headers) as response:
        assert response.status_code == status


@pytest.mark.parametrize("name", ["localhost", "platform.localhost", "[::1]"])
def test_other_names_of_the_loopback_are_redirected(client: httpx.Client, name: str) -> None:
    """Another user may listen at ::1, and a browser tell the pages of both by port only."""
    response = client.get("/payments/%40?a=%26b", headers={"Host": f"{name}:8006"})
    assert response.status_code == 307
    assert response.headers["location"] == "http://127.0.0.1:8006/payments/@?a=%26b"


def test_only_websockets_are_taken_by_socket_io(client: httpx.Client) -> None:
    """The page uses no other transport or path, and engineio answers 500 to some of them."""
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    assert [client.request(method, path).status_code for method in ("GET", "POST")] == [400, 400]
    assert client.get("/_nicegui_ws/x", headers=UPGRADE).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [("/%00", 400), ("/" + "x" * 300, 400), ("/" + "%C3%A4" * 150, 400), ("/" + "x" * 250, 404)],
    ids=["NUL", "long", "long in UTF-8", "in bounds"],
)
def test_a_path_of_no_file_is_refused(client: httpx.Client, path: str, status: int) -> None:
    """NiceGUI would look for a file of that name, and answer 500."""
    assert client.get(path).status_code == status


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")


@pytest.fixture(params=["sock_diag", "tables"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Linux tells a socket's owner; a kernel may lack the module for the first one."""
    if request.param == "tables":
        monkeypatch.setattr(peer, "_netlink", Mock(side_effect=OSError(93, "not supported")))


@linux_only
@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_other_users_of_the_machine_are_refused(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """They are found for an IPv6 socket, too, and after the client has sent everything."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as program:
        own = server.getsockname()
        program.connect((host, own[1]))
        connection, address = server.accept()
        with connection:
            program.shutdown(socket.SHUT_WR)
            assert not peer.is_foreign(address, own)
            monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
            monkeypatch.setattr(peer, "_ROOT", 4_000_000_000)
            assert peer.is_foreign(address, own)
            with pytest.raises(httpx.HTTPError):  # before it has sent anything
                httpx.post(client.base_url)  # not by a connection that is open already


@linux_only
@pytest.mark.usefixtures("source")
def test_a_user_that_linux_does_not_tell_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when no file can be opened any more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        own = server.getsockname()
        with socket.create_connection(own) as program, server.accept()[0]:
            assert not peer.is_foreign(program.getsockname(), own)
            monkeypatch.setattr(peer, "_netlink", Mock(side_effect=OSError(24, "too many")))
            monkeypatch.setattr(peer, "_TABLES", {Path("/nonexistent"): ""})
            assert peer.is_foreign(program.getsockname(), own)


@linux_only
@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("linger_seconds", [None, 0])
def test_a_closed_connection_is_refused(linger_seconds: int | None) -> None:
    """Linux no longer lists its owner, so any user could send spans that way."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        own = server.getsockname()
        with socket.create_connection(own) as program:
            connection, address = server.accept()
            if linger_seconds is not None:
                option = struct.pack("ii", 1, linger_seconds)
                program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        with connection:
            assert peer.is_foreign(address, own)
            assert peer.is_foreign(own, own), "a listener is no connection"
            assert peer.is_foreign(None, own)


@linux_only
def test_connections_that_send_nothing_do_not_hold_up_others(client: httpx.Client) -> None:
    """The user of each is found before a browser would notice."""
    port = client.base_url.port or 0
    for _ in range(500):
        socket.create_connection(("127.0.0.1", port)).close()
    assert client.get("/", timeout=5).status_code == 200


def test_no_page_may_frame_the_console(client: httpx.Client) -> None:
    """Nor may the console load anything from elsewhere."""
    policy = client.get("/").headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'self'" in policy
    assert "http" not in policy


def environment(port: int, state: Path) -> dict[str, str]:
    """That of a console beside a stack that is down."""
    # With the name of a test, NiceGUI would wait for its own test driver.
    inherited = {n: value for n, value in os.environ.items() if n != "PYTEST_CURRENT_TEST"}
    environ = {"HTTP_PORT": str(port), "PLATFORM_PORT": "1", "PLATFORM_STATE": str(state)}
    return inherited | environ | {"REDIS_URL": f"redis://127.0.0.1:{support.CLOSED_PORT}"}


COMMAND = [sys.executable, "-m", "devtools.console"]


def test_readiness_is_announced_once_the_port_is_open(tmp_path: Path) -> None:
    """If its port is in use, the console exits and never logs `listening`."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = support.call(COMMAND, environment(other.getsockname()[1], tmp_path))
    assert "address already in use" in done.stdout
    assert "listening" not in done.stdout


def test_the_log_has_no_url(tmp_path: Path) -> None:
    """It may have a secret; that of a page that does not exist, too."""
    port, log = support.free_ports(1), tmp_path / "log"
    with support.program(COMMAND, environ=environment(port, tmp_path), output=log):
        support.wait_until(lambda: "listening" in log.read_text(), what="the console")
        for path in ("/nothing?token=secret", "//user:secret@localhost/", "/?token=secret"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30).status_code < 500
    assert "secret" not in log.read_text()
