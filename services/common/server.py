"""Runs a WSGI app under gunicorn; shared by all HTTP services.

gthread workers suit services that wait for Redis or hash outside the GIL: 5,100 requests/s on two
cores, against 3,800 with sync workers, which a slow client also blocks.
"""

import errno
import logging
import mmap
import os
import re
import signal
import socket
import struct
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from structlog.contextvars import clear_contextvars

from services.common import logs, metrics, tracing
from services.common.settings import HttpSettings, HttpSettingsT, exit_if_bad
from services.common.web import App

THREADS = 8
# Longer than the router keeps idle connections (60 s), so that the router closes them: closing from
# this side could lose a request in flight.
KEEPALIVE_SECONDS = 75
# Below process-compose's 2 s between SIGTERM and SIGKILL.
GRACE_SECONDS = 1
# A worker whose main loop is blocked for this long is replaced.
STUCK_SECONDS = 30
# Delay before an accept if another worker has fewer connections, and after a failed accept.
GIVE_WAY_SECONDS = 0.001
# Per worker. At 1000, gunicorn polls nothing: it would not even see that connections were closed.
# Each takes a file descriptor, of which a process often has 1024.
CONNECTIONS_MAX = 512
# A client that neither sends nor reads for this long in a request frees its thread. The router
# buffers, so only direct clients can be this slow.
STALL_SECONDS_MAX = 5.0
# Entries in the workers' table of connections: more than the workers that run at once.
_COUNTS = 256
# What follows in gunicorn's message is the client's bytes, possibly with a password or token.
_INVALID = re.compile(r"(Invalid request from ip=[^ ]*: [\w ]*).*", re.DOTALL)

_log = structlog.get_logger()


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Sends gunicorn's own messages through the standard library's `logging`."""

    def setup(self, _cfg: Any) -> None:
        self.error_log.handlers = []
        self.error_log.propagate = True
        self.error_log.addFilter(_correct)
        self.access_log.disabled = True


def _correct(record: logging.LogRecord) -> bool:
    """Removes the fields of the thread's last request, and the client's bytes, from a message.

    Also corrects the reason for a killed worker: at a stop, gunicorn itself kills one that is still
    busy after GRACE_SECONDS.
    """
    clear_contextvars()
    reason = f"Not stopped within {GRACE_SECONDS} s, or out of memory?"
    message = str(record.msg).replace("Perhaps out of memory?", reason)
    record.msg = _INVALID.sub(r"\1", message)
    error = record.exc_info and record.exc_info[1]
    if type(error).__module__ == "gunicorn.http.errors":  # of a chunked body that was not read
        record.msg, record.args = f"Invalid request: {type(error).__name__}", ()
        record.exc_info = None
    return True


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(
        self,
        create_app: Callable[[], App],
        options: dict[str, Any],
        counters: metrics.SharedCounters,
    ) -> None:
        self._create_app = create_app
        self._counters = counters
        self._options = options | {
            "when_ready": counters.when_ready,
            "pre_fork": counters.pre_fork,
            "post_worker_init": self._worker_started,
            "worker_exit": lambda _arbiter, _worker: tracing.stop(),
            "child_exit": self._worker_ended,
        }
        # Shared by the workers: the open connections of each plus one; 0 without a worker.
        self._counts = memoryview(mmap.mmap(-1, _COUNTS * 4)).cast("I")
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)
        # Since gunicorn 25.1: one socket in the user's home, so services and checkouts would
        # collide.
        if "control_socket_disable" in self.cfg.settings:
            self.cfg.set("control_socket_disable", True)

    def load(self) -> App:
        return self._create_app()

    def _worker_started(self, worker: Any) -> None:
        """Announces readiness once, before the first worker accepts connections."""
        tracing.start()
        if worker.age == 1:
            logs.announce("listening", address=str(worker.sockets[0]))
        listeners = [_Listener(sock, self._counts, worker.age % _COUNTS) for sock in worker.sockets]
        worker.sockets = [*listeners, _Alarm()]

    def _worker_ended(self, arbiter: Any, worker: Any) -> None:
        self._counters.child_exit(arbiter, worker)
        self._counts[worker.age % _COUNTS] = 0


class _Connection(socket.socket):
    """A client's connection; one that stalls within a request counts as closed by the client.

    The kernel keeps the time; with `settimeout`, Python would poll before each call.
    """

    _is_stalled = False

    def __init__(self, accepted: socket.socket) -> None:
        seconds = struct.pack("ll", int(STALL_SECONDS_MAX), int(STALL_SECONDS_MAX % 1 * 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            accepted.setsockopt(socket.SOL_SOCKET, option, seconds)
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receives data; from a stalled client b"", as if it had closed the connection.

        Nothing after that either: gunicorn would parse the rest of a body as a new request.
        """
        if self._is_stalled:
            return b""
        try:
            return super().recv(size, flags)
        except BlockingIOError:
            if flags & socket.MSG_DONTWAIT:
                raise
            self._is_stalled = True
            return b""

    def sendall(self, *args: Any) -> None:
        """Sends data; raises BrokenPipeError if the client stalls, as if it had closed."""
        try:
            super().sendall(*args)
        except BlockingIOError as error:
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from error


class _Listener:
    """A worker's listening socket; leaves new connections to workers that have fewer.

    gunicorn accepts whenever it wakes up: in every second trial one worker got all of the router's
    connections, which are long-lived, and half the workers were idle. Above CONNECTIONS_MAX, new
    connections are closed at once.
    """

    def __init__(self, listener: Any, counts: "memoryview[int]", slot: int) -> None:
        self._listener = listener
        self._counts = counts
        self._slot = slot
        self._accepted: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._refusal = ""
        self._publish()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    def accept(self) -> tuple[socket.socket, Any]:
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
        if self._publish() > CONNECTIONS_MAX:
            connection.close()
            self._refuse("too many connections: new ones are closed", max=CONNECTIONS_MAX)
        self._refusal = ""
        return connection, address

    def _accept(self) -> tuple[socket.socket, Any]:
        accepted, address = self._listener.accept()
        try:
            return _Connection(accepted), address
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


class _Alarm:
    """Readable after a signal, so that a worker's loop sees at once that it should stop.

    Otherwise it waits up to 1 s; gunicorn 24 and newer wake up by themselves.
    """

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._receiver, name)

    def accept(self) -> Any:
        self._receiver.recv(4096)
        raise BlockingIOError(errno.EAGAIN, "a signal, no connection")

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._receiver.close()


def run(
    name: str,
    kind: type[HttpSettingsT],
    create_app: Callable[[HttpSettingsT], App],
    *,
    threads: int = THREADS,
) -> None:
    """Reads the settings and serves until a signal; exits with 78 if a setting is invalid."""
    with exit_if_bad():
        settings = kind.read(os.environ)
        logs.configure(name, settings)
        serve(lambda: create_app(settings), settings, threads=threads)


def serve(create_app: Callable[[], App], settings: HttpSettings, *, threads: int = THREADS) -> None:
    """Serves until a signal. The app is created once, before the workers fork."""
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    options = {
        "bind": [f"{host}:{settings.http_port}"],
        # Only a service that may run more than one process has the setting.
        "workers": getattr(settings, "workers", 1),
        "worker_class": "gthread",
        "threads": threads,
        # Slightly above the limits that the router's 431 and 414 state: it adds some fields.
        "limit_request_line": 8190,
        "limit_request_fields": 210,
        "limit_request_field_size": 16400,
        # By default gunicorn trusts SCRIPT_NAME from the loopback: a client could cause a 500.
        "forwarded_allow_ips": "",
        "preload_app": True,
        "keepalive": KEEPALIVE_SECONDS,
        "graceful_timeout": GRACE_SECONDS,
        # No timeout under a debugger: a breakpoint blocks the worker.
        "timeout": 0 if "_pydevd_bundle" in sys.modules else STUCK_SECONDS,
        "logger_class": _Logger,
        # A worker's heartbeat file must not block on disk I/O.
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
    }
    counters = metrics.SharedCounters(settings.http_port)
    try:
        _Server(create_app, options, counters).run()
    finally:
        counters.remove()
