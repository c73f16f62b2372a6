"""The HTTP port of a process without gunicorn."""

import socket
import struct
from typing import Any
from wsgiref.simple_server import demo_app

import pytest
import structlog

from services.common import worker
from services.common.settings import HttpSettings
from tests.support import free_ports, wait_until


def test_half_a_request_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """A port scan fills no log with tracebacks."""
    port = free_ports(1)
    app: Any = demo_app
    with structlog.testing.capture_logs() as lines:
        worker._serve_in_background(app, HttpSettings(http_port=port))  # noqa: SLF001
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n")
            reset = struct.pack("ii", 1, 0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        wait_until(lambda: bool(lines), seconds_max=10, what="the line")
    assert [line["event"] for line in lines] == ["connection failed"]
    assert capfd.readouterr().err == ""
