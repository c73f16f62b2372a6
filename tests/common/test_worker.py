"""The HTTP port of a process without gunicorn."""

import contextlib
import json
import os
import socket
import struct
import sys
from socketserver import ThreadingMixIn
from typing import Any
from unittest.mock import Mock
from wsgiref.simple_server import demo_app

import pytest
import structlog

from services.common import worker
from services.common.settings import HttpSettings
from tests.support import call, free_ports, wait_until

_IMPORTS = "from services.common import worker; from services.common.settings import HttpSettings"


def serve() -> int:
    """Serves an app from a thread until the test process ends; returns the port."""
    port = free_ports(1)
    app: Any = demo_app
    worker._serve_in_background(app, HttpSettings(http_port=port))  # noqa: SLF001
    return port


def test_half_a_request_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """A port scan fills no log with tracebacks."""
    with structlog.testing.capture_logs() as lines:
        port = serve()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n")
            reset = struct.pack("ii", 1, 0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        wait_until(lambda: bool(lines), seconds_max=10, what="the line")
    assert [line["event"] for line in lines] == ["connection failed"]
    assert capfd.readouterr().err == ""


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound new ones are closed; a place that is free again serves the next."""
    monkeypatch.setattr(worker, "_CONNECTIONS_MAX", 3)
    port = serve()
    with contextlib.ExitStack() as open_ones:
        clients = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            for _ in range(4)
        ]
        assert clients[3].recv(1) == b""

    wait_until(lambda: is_served(port), what="a free place")


def test_a_thread_that_cannot_start_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a limit of processes; afterwards the port is served again."""
    monkeypatch.setattr(worker, "_CONNECTIONS_MAX", 1)
    port = serve()
    with monkeypatch.context() as patch:
        patch.setattr(ThreadingMixIn, "process_request", Mock(side_effect=RuntimeError("limit")))
        assert not is_served(port)
    assert is_served(port)


def test_a_head_without_end_is_cut_off() -> None:
    """Splitting megabytes of headers would take minutes, in which charging waits."""
    port = serve()
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            client.sendall((b"a:b\r" * 12_000 + b"\n") * 90)  # 4 MB
    assert is_served(port)


@pytest.mark.parametrize(
    ("head", "response"),
    [
        (b"GET / HTTP/1.0\r\nA: " + b"a" * (16 * 1024 - 23) + b"\r\n\r\n", b"HTTP"),
        (b"GET / HTTP/1.0\r\nA: " + b"a" * (16 * 1024 - 22) + b"\r\n\r\n", b""),
        (b"GET / HTTP/1.0\r\n", b""),
    ],
    ids=["16 KiB", "a byte more", "incomplete"],
)
def test_a_whole_head_of_16_kib_is_answered(head: bytes, response: bytes) -> None:
    """Anything else is closed without a response."""
    with socket.create_connection(("127.0.0.1", serve()), 5) as client:
        client.sendall(head)
        received = b""
        with contextlib.suppress(OSError):  # a reset, for what it has not read
            client.shutdown(socket.SHUT_WR)
            received = client.recv(4)
        assert received == response


def test_a_head_of_single_bytes_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is in time, the whole head is not."""
    monkeypatch.setattr(worker, "_CONNECTION_SECONDS_MAX", 0.3)
    with socket.create_connection(("127.0.0.1", serve()), 0.05) as client:

        def is_closed() -> bool:
            try:
                client.sendall(b"x")
                return client.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_closed, seconds_max=10, what="the end of the connection")


def is_served(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            return client.recv(8) == b"HTTP/1.0"
    return False


def test_a_used_port_is_one_line() -> None:
    """Not a traceback, for example if the stack's own process was not stopped."""
    with socket.create_server(("127.0.0.1", 0)) as used:
        code = "worker.run('test', HttpSettings, lambda _: (None, None))"
        done = call(
            [sys.executable, "-c", f"{_IMPORTS}; {code}"],
            {"HTTP_PORT": str(used.getsockname()[1]), "PATH": os.environ["PATH"]},
        )
    assert done.returncode == 1
    [line] = done.stdout.splitlines()
    assert json.loads(line)["event"] == "cannot listen"
    assert done.stderr == ""
