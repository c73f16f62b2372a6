"""What all HTTP services have in common."""

import io
import socket
from typing import Any

import falcon.testing
import pytest
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from structlog.contextvars import bind_contextvars, merge_contextvars
from structlog.testing import capture_logs

from services.common.settings import HttpSettings
from services.common.web import make_app, read_json
from tests.support import wait_until


class Note(BaseModel):
    text: str = ""
    number: int = 0


class Notes:
    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"notes": []}

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        bind_contextvars(note="mine")
        resp.media = read_json(req, Note).model_dump()


def service(**environ: str) -> falcon.testing.TestClient:
    settings = HttpSettings.read({"HTTP_PORT": "1", **environ})
    app = make_app({"/notes": Notes()}, settings, checks={})
    return falcon.testing.TestClient(app, headers={"Host": "localhost"})


@pytest.fixture(scope="module")
def api() -> falcon.testing.TestClient:
    return service()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the state is known on Linux only")
def test_a_request_whose_client_has_gone_is_not_processed(api: falcon.testing.TestClient) -> None:
    """Clients that give up early and retry would delay all others."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        connection, _ = server.accept()
        with connection:
            extras = {"gunicorn.socket": connection}
            assert api.simulate_get("/notes", extras=extras).status_code == 200
            client.close()
            wait_until(lambda: api.simulate_get("/notes", extras=extras).status_code == 400)
            code = api.simulate_get("/notes", extras=extras).json["code"]
            assert code == "client-closed-request"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/notes", {"Content-Type": "text/plain"}, 415),
        ("/notes", {"Content-Encoding": "gzip"}, 415),
        ("/nowhere", {}, 404),
        ("/notes", {"Host": "evil.example"}, 421),
    ],
)
def test_a_refused_body_is_read(
    api: falcon.testing.TestClient, path: str, headers: dict[str, str], status: int
) -> None:
    """Otherwise gunicorn's thread waits for the connection's next request, with others in line."""
    stream, length = io.BytesIO(b"x" * 15_000), {"Content-Length": "15000"}
    extras = {"wsgi.input": stream}
    result = api.simulate_post(path, headers=headers | length, extras=extras)
    assert (result.status_code, stream.read()) == (status, b"")


LOCAL = "localhost LOCALHOST:8002 platform.localhost:8000 127.0.0.1:8002 127.0.0.2 [::1]:8002"
FOREIGN = [
    *("", "evil.example", "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example"),
    *("localhost:8002:8002", "localhost, evil.example", "localhost@evil.example", "10.0.0.7:8002"),
]


@pytest.mark.parametrize(
    ("host", "environ", "status"),
    [
        *((host, {}, 200) for host in LOCAL.split()),
        *((host, {}, 421) for host in FOREIGN),
        ("pay.example", {"ALLOWED_HOSTS": "pay.example www.example"}, 200),
        ("WWW.example:443", {"ALLOWED_HOSTS": "pay.example www.example"}, 200),
        ("payxexample", {"ALLOWED_HOSTS": "pay.example"}, 421),
        ("10.0.0.7:8002", {"HTTP_HOST": "0.0.0.0"}, 200),
        ("[2001:db8::1]:8002", {"HTTP_HOST": "::"}, 200),
        ("evil.example", {"HTTP_HOST": "0.0.0.0"}, 421),
    ],
)
@pytest.mark.parametrize("path", ["/notes", "/health", "/metrics", "/nowhere"])
def test_a_foreign_host_is_misdirected(
    host: str, environ: dict[str, str], status: int, path: str
) -> None:
    """Local and configured names are served; IP addresses only if not bound to the loopback."""
    found = service(**environ).simulate_get(path, headers={"Host": host}).status_code
    assert status == (200 if found == 404 else found)


@pytest.mark.parametrize("path", ["//notes", "///notes", "notes", "//health", "//metrics"])
def test_a_path_has_one_spelling(path: str) -> None:
    """A resource is not found under another path, which middleware that checks paths would pass."""
    environ = falcon.testing.create_environ("/", headers={"Host": "localhost"})
    result = falcon.testing.StartResponseMock()
    service().app({**environ, "PATH_INFO": path}, result)
    assert result.status == "404 Not Found"


@given(
    method=st.one_of(
        st.sampled_from(["WEBSOCKET", "TRACE", "CONNECT", "PRI", "get"]),
        st.text(st.sampled_from("ABCXYZabc-_!1"), min_size=1, max_size=20),
    ),
    path=st.sampled_from(["/notes", "/health", "/metrics", "/nowhere"]),
)
@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
def test_no_method_causes_a_500(method: str, path: str) -> None:
    """The response to any method is a client error with the request id."""
    sent = {"X-Request-Id": "r-1"}
    result = service().simulate_request(method, path, headers=sent)
    assert result.status_code in {400, 404, 405}
    assert (result.headers["X-Request-Id"], result.json["request_id"]) == ("r-1", "r-1")


@pytest.mark.parametrize("path", ["/notes", "/health", "/metrics"])
def test_head_is_get_without_a_body(api: falcon.testing.TestClient, path: str) -> None:
    """HEAD has the status and type of GET, and Allow lists it."""
    got, headed = api.simulate_get(path), api.simulate_head(path)
    assert (headed.status_code, headed.content) == (200, b"")
    assert got.headers["Content-Type"] == headed.headers["Content-Type"]
    assert "HEAD" in api.simulate_options(path).headers["Allow"]


JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        ('{"text": "a", "number": 1}', JSON, 200, None),
        ('{"text": "a:b::"}', JSON, 200, None),
        ("{}", JSON, 200, None),
        # Repeated names, however escaped: parsers disagree on them.
        ('{"text": "a", "text": "b"}', JSON, 400, "malformed-json"),
        ('{"text": "a", "text": 1}', JSON, 400, "malformed-json"),
        ('{"text": "a", "t\\u0065xt": "b"}', JSON, 400, "malformed-json"),
        ('{"text": ":", "number": 1, "number": 2}', JSON, 400, "malformed-json"),
        ('{"other": {"a": 1, "a": 2}, "text": 1}', JSON, 400, "malformed-json"),
        ("{", JSON, 400, "malformed-json"),
        ("[" * 16_000, JSON, 400, "malformed-json"),
        ('{"text": "\\ud800"}', JSON, 400, "malformed-json"),
        ('{"number": ' + "9" * 16_000 + "}", JSON, 400, "malformed-json"),
        ("[]", JSON, 422, "invalid-request"),
        ('{"text": 1}', "application/json; charset=utf-8", 422, "invalid-request"),
        (f'{{"text": "{"x" * 17_000}"}}', JSON, 413, "payload-too-large"),
        ("text=a", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        ("{}", None, 415, "unsupported-media-type"),
    ],
    ids=range(17),
)
def test_each_body_has_its_status_and_code(
    api: falcon.testing.TestClient, body: str, content_type: str | None, status: int, code: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    result: Any = api.simulate_post("/notes", body=body, headers=headers)
    assert (result.status_code, result.json.get("code")) == (status, code)


def test_malformed_json_is_located(api: falcon.testing.TestClient) -> None:
    """The detail says where the parser failed, and why: a number of 5,000 digits is JSON."""
    body = '{"number": 1' + "0" * 5_000 + "}"
    result: Any = api.simulate_post("/notes", body=body, headers={"Content-Type": JSON})
    assert "number out of range at line 1 column" in result.json["detail"]


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [
        ("abc-1.2_3", True), ("x" * 64, True),
        ("", False), ("x" * 65, False), ("a b", False), ("a\tb", False), ("é", False),
    ],
)  # fmt: skip
def test_a_valid_request_id_is_kept(
    api: falcon.testing.TestClient, sent: str, *, is_kept: bool
) -> None:
    """1 to 64 letters, digits, `.`, `_` or `-` are kept; anything else is replaced."""
    request_id = api.simulate_get("/health", headers={"X-Request-Id": sent}).headers["X-Request-Id"]
    assert (request_id == sent, len(request_id) == 36) == (is_kept, not is_kept)


@pytest.mark.parametrize(
    ("encoding", "status"), [("identity", 200), ("Identity", 200), ("gzip", 415), ("x, y", 415)]
)
def test_an_encoded_body_is_refused(
    api: falcon.testing.TestClient, encoding: str, status: int
) -> None:
    """A body with a Content-Encoding is not decoded; the response says what to send."""
    result: Any = api.simulate_post("/notes", json={}, headers={"Content-Encoding": encoding})
    assert status == result.status_code
    assert ("identity" if status == 415 else None) == result.headers.get("Accept-Encoding")


def test_log_lines_have_the_fields_of_their_request_only(api: falcon.testing.TestClient) -> None:
    """Fields bound by one request are not on the lines of the thread's next request."""
    with capture_logs([merge_contextvars]) as lines:
        api.simulate_post("/notes", json={}, headers={"X-Request-Id": "r-1"})
        api.simulate_get("/notes", headers={"X-Request-Id": "r-2"})
    found = [(line["request_id"], line.get("note")) for line in lines]
    assert found == [("r-1", "mine"), ("r-2", None)]


def test_a_body_shorter_than_its_length_is_refused(api: falcon.testing.TestClient) -> None:
    """Also if what arrived is JSON (on a service's own port; the router buffers)."""
    headers = {"Content-Type": JSON, "Content-Length": "9"}
    result: Any = api.simulate_post("/notes", body="{}", headers=headers)
    assert (result.status_code, "incomplete" in result.json["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        (b"0x2\r\n{}", 400), (b"-2\r\n{}", 400), (b"2\r\n{}{}\r\n", 400), (b"4\r\n{}", 400),
        (b"4", 400), (b"4002\r\n" + b"{}".rjust(0x4002) + b"\r\n0\r\n\r\n", 413),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_body_in_chunks_is_read_within_its_limit(
    api: falcon.testing.TestClient, chunks: bytes, status: int
) -> None:
    """Malformed or too large, it is refused (on a service's own port; the router takes none)."""
    result: Any = api.simulate_post(
        "/notes",
        headers={"Content-Type": "application/json"},
        extras={"wsgi.input": Body(ChunkedReader(None, IterUnreader([chunks])))},
    )
    assert result.status_code == status
