"""The connections of gunicorn's workers: shared evenly, bounded, and not held by slow clients."""

import contextlib
import errno
import math
import socket
import struct
import threading
import time
import weakref
from typing import Any, NoReturn

import structlog

# Delay before an accept if another worker has fewer connections, and after a failed accept.
GIVE_WAY_SECONDS = 0.001
# Per worker. At 1000, gunicorn polls nothing: it would not even see that connections were closed.
# Each takes a file descriptor, of which a process often has 1024.
CONNECTIONS_MAX = 512
# A client that sends nothing for this long in a request, or takes longer to read a response, frees
# its thread. The router buffers, so only direct clients can be this slow.
STALL_SECONDS_MAX = 5.0
# So does one that takes longer to send a whole request, as by single bytes.
REQUEST_SECONDS_MAX = 10.0
# Headers and body; more than any that is accepted. A chunk size without end always has bytes
# waiting, so the time alone would not end it.
REQUEST_BYTES_MAX = 256 * 1024

_log = structlog.get_logger()


class Connection(socket.socket):
    """A client's connection; it counts as closed by the client once a request exceeds a limit.

    The kernel keeps the time of a stall; with `settimeout`, Python would poll before each call.
    """

    _is_cut_off = False
    # Of the request that is being received:
    _deadline = 0.0
    _bytes_left = 0
    _next_request = threading.Lock()  # is read, or its connection ended, but not both

    def __init__(self, accepted: socket.socket) -> None:
        seconds = struct.pack("ll", int(STALL_SECONDS_MAX), int(STALL_SECONDS_MAX % 1 * 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            accepted.setsockopt(socket.SOL_SOCKET, option, seconds)
        self._silent_until = time.monotonic() + STALL_SECONDS_MAX
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receives data; b"" once a limit is exceeded, as if the client had closed the connection.

        Nothing after that either: gunicorn would parse the rest of a body as a new request.
        """
        if flags & socket.MSG_DONTWAIT:
            return super().recv(size, flags)
        if self._silent_until < math.inf:
            with self._next_request:
                self._silent_until = math.inf
        if self._is_cut_off:
            return b""
        if not self._deadline:
            self._deadline = time.monotonic() + REQUEST_SECONDS_MAX
            self._bytes_left = REQUEST_BYTES_MAX
        is_late = time.monotonic() > self._deadline
        data = b""
        with contextlib.suppress(BlockingIOError):
            # What has arrived is not the client's delay: this process may have been suspended.
            data = super().recv(min(size, self._bytes_left), socket.MSG_DONTWAIT if is_late else 0)
        self._bytes_left -= len(data)
        self._is_cut_off = not data
        return data

    def end_if_silent(self) -> bool:
        """Ends the connection if it has waited STALL_SECONDS_MAX for a request; whether it did.

        gunicorn waits long for the next request, without limit for the first, and closes what has
        ended.
        """
        with self._next_request, contextlib.suppress(OSError):
            if time.monotonic() < self._silent_until:
                return False
            try:
                self.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._is_cut_off = True  # a request that arrives now is not processed
                self.shutdown(socket.SHUT_RDWR)
                return True
        return False  # a request waits for a thread, or it has ended

    def sendall(self, data: Any, _flags: int = 0) -> None:
        """Sends data; raises BrokenPipeError if the client reads slowly, as if it had closed."""
        self._deadline = 0.0
        self._silent_until = deadline = time.monotonic() + STALL_SECONDS_MAX
        rest = memoryview(data)
        # Not socket.sendall, for which the kernel's time begins again with each part.
        with contextlib.suppress(BlockingIOError):
            while rest:
                rest = rest[super().send(rest) :]
                if time.monotonic() > deadline:
                    break
        if rest:
            raise BrokenPipeError(errno.EPIPE, "the client reads too slowly")


class Listener:
    """A worker's listening socket; leaves new connections to workers that have fewer.

    gunicorn accepts whenever it wakes up: in every second trial one worker got all of the router's
    connections, which are long-lived, and half the workers were idle. Above CONNECTIONS_MAX, new
    connections are closed at once. Above half of it, idle ones make way: not earlier, because the
    router keeps some for its next requests.
    """

    def __init__(self, listener: Any, counts: "memoryview[int]", slot: int) -> None:
        self._listener = listener
        self._counts = counts
        self._slot = slot
        self._accepted: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._refusal = ""
        self._publish()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    def accept(self) -> tuple[Connection, Any]:
        """Accepts a connection; raises BlockingIOError if there is none or it is unusable.

        Any other OSError would end the worker.
        """
        if self._publish() > min(filter(None, self._counts)):
            # Meanwhile a worker with fewer accepts; if it is busy, this one does.
            time.sleep(GIVE_WAY_SECONDS)
        try:
            connection, address = self._accept()
        except BlockingIOError:
            raise
        except OSError as error:
            # Without file descriptors, the listener stays readable.
            time.sleep(GIVE_WAY_SECONDS)
            self._refuse("cannot accept a connection", reason=error.strerror)
        self._accepted.add(connection)
        if self._publish() > CONNECTIONS_MAX // 2:
            self._accepted -= {one for one in list(self._accepted) if one.end_if_silent()}
        if self._publish() > CONNECTIONS_MAX:
            connection.close()
            self._refuse("too many connections: new ones are closed", max=CONNECTIONS_MAX)
        self._refusal = ""
        return connection, address

    def _accept(self) -> tuple[Connection, Any]:
        accepted, address = self._listener.accept()
        try:
            return Connection(accepted), address
        except OSError:  # macOS: EINVAL if the peer has reset the connection
            accepted.close()
            raise

    def _refuse(self, refusal: str, **fields: Any) -> NoReturn:
        """Raises BlockingIOError; logs the first of several refusals."""
        if refusal != self._refusal:
            _log.warning(refusal, **fields)
        self._refusal = refusal
        raise BlockingIOError(errno.EAGAIN, refusal)

    def _publish(self) -> int:
        count = 1 + sum(connection.fileno() >= 0 for connection in list(self._accepted))
        self._counts[self._slot] = count
        return count
