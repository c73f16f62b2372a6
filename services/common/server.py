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
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from structlog.contextvars import clear_contextvars

from services.common import logs, metrics, tracing
from services.common.connections import Listener
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
        listeners = [Listener(sock, self._counts, worker.age % _COUNTS) for sock in worker.sockets]
        worker.sockets = [*listeners, _Alarm()]

    def _worker_ended(self, arbiter: Any, worker: Any) -> None:
        self._counters.child_exit(arbiter, worker)
        self._counts[worker.age % _COUNTS] = 0


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
        # Not its run(), which prints a RuntimeError of create_app without its place.
        Arbiter(_Server(create_app, options, counters)).run()
    finally:
        counters.remove()
