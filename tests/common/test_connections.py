"""Connections and listener of gunicorn's workers, without gunicorn; see test_server.py."""

import errno
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from services.common import connections
from services.common.connections import Connection, Listener


def test_a_silent_connection_that_is_ended_gets_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that arrives at that moment must not be processed without a response."""
    monkeypatch.setattr(connections, "STALL_SECONDS_MAX", 0)
    for has_sent in (False, True):
        accepted, client = socket.socketpair()
        with client, Connection(accepted) as connection:
            if has_sent:
                client.sendall(b"GET")
            monkeypatch.setattr(connection, "shutdown", lambda _, to=client: to.sendall(b"late"))
            assert connection.end_if_silent() != has_sent
            assert connection.recv(3) == (b"GET" if has_sent else b"")
            assert not connection.end_if_silent()


def test_bytes_that_are_there_are_read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that arrived while this process was suspended is complete."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS_MAX", 0)
    accepted, client = socket.socketpair()
    with client, Connection(accepted) as connection:
        client.sendall(b"ab")
        assert (connection.recv(1), connection.recv(1)) == (b"a", b"b")
        assert connection.recv(1) == b""


def test_bytes_after_a_stall_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late bytes of a request's body are not parsed as a new request."""
    monkeypatch.setattr(connections, "STALL_SECONDS_MAX", 0.1)
    accepted, client = socket.socketpair()
    with client, Connection(accepted) as connection:
        assert connection.recv(10) == b""
        client.sendall(b"GET / HTTP/1.1")
        assert connection.recv(10) == b""


def test_a_request_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes always wait to be read, so no time limit ends it; the rest is not read later."""
    monkeypatch.setattr(connections, "REQUEST_BYTES_MAX", 4)
    accepted, client = socket.socketpair()
    with client, Connection(accepted) as connection:
        for _ in range(2):  # requests
            client.sendall(b"abc")
            assert (connection.recv(2), connection.recv(3)) == (b"ab", b"c")
            connection.sendall(b"response")
        client.sendall(b"abcdefgh")
        assert (connection.recv(4), connection.recv(4)) == (b"abcd", b"")
        connection.sendall(b"response")
        assert connection.recv(4) == b""


def test_a_client_that_reads_slowly_frees_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole response must be read in time, not a part of it."""
    monkeypatch.setattr(connections, "STALL_SECONDS_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    end = threading.Event()

    def read() -> None:
        while not end.wait(0.02):
            client.recv(256 * 1024)

    with client, Connection(accepted) as connection:
        reader = threading.Thread(target=read)
        reader.start()
        try:
            with pytest.raises(BrokenPipeError):
                connection.sendall(bytes(64 * 1024 * 1024))
        finally:
            end.set()
            reader.join()


class _Reset(socket.socket):
    def setsockopt(self, *_: Any) -> None:
        raise OSError(errno.EINVAL, "the peer has reset the connection")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EINVAL])
def test_a_connection_that_cannot_be_accepted_does_not_end_the_worker(number: int) -> None:
    """Without file descriptors, or after the peer's reset, accept fails with EAGAIN."""
    accepted = _Reset()

    def accept() -> tuple[socket.socket, str]:
        if number == errno.EMFILE:
            raise OSError(number, "too many open files")
        return accepted, ""

    counts = memoryview(bytearray(4)).cast("I")
    listener = Listener(SimpleNamespace(accept=accept), counts, 0)
    with accepted:
        for _ in range(2):
            with pytest.raises(BlockingIOError) as caught:
                listener.accept()
            assert caught.value.errno == errno.EAGAIN
        assert (accepted.fileno() == -1) == (number == errno.EINVAL)
