"""Runs a WSGI app under gunicorn; the same for every HTTP service.

gthread workers with several threads did best of gunicorn's kinds for services that wait for Redis
or hash outside the interpreter's lock: in a trial on two cores 5,100 requests a second, and 3,800
with sync workers, which a slow client blocks besides.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import selectors
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from services import metrics
from services.reload import reloader

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from services.settings import HttpSettings
    from services.web import App

THREADS = 8
# Longer than the router keeps an idle connection (60 s), so that it is the router who closes: a
# connection closed from this side could have a request on its way, which would be lost.
KEEPALIVE_SECONDS = 75
# Under process-compose's two seconds between SIGTERM and SIGKILL.
GRACE_SECONDS = 1
# A worker that does not come back to its loop for so long is replaced.
STUCK_SECONDS = 30
# What a worker with more connections than another waits before it takes one more.
GIVE_WAY_SECONDS = 0.001
# What a worker with old code may take to answer what it has accepted.
LEAVE_SECONDS_MAX = 10

_log = structlog.get_logger()


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own messages, through the standard library to where all logs go."""

    def setup(self, _cfg: Any) -> None:
        self.error_log.handlers = []
        self.error_log.propagate = True
        self.access_log.disabled = True


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, create_app: Callable[[], App], options: dict[str, Any]) -> None:
        self._create_app = create_app
        self._options = options | {"when_ready": self._up, "child_exit": self._worker_ended}
        self._arbiter: Any = None
        self.shares = _Shares()
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> App:
        return self._create_app()

    def _up(self, arbiter: Any) -> None:
        """The app is built, and the workers are about to fork: those with older code may go."""
        self._arbiter = arbiter
        _log.info("listening", address=str(arbiter.LISTENERS[0]))
        for pid in reloader.handed_over.get("workers", ()):
            # They are this process' children, and were not waited for, so the id is still theirs.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        # To the thread that sleeps in gunicorn's loop: another one would not wake it.
        main = threading.main_thread().ident or 0
        reloader.watch(lambda: signal.pthread_kill(main, signal.SIGHUP))

    def _worker_ended(self, arbiter: Any, worker: Any) -> None:
        metrics.worker_ended(arbiter, worker)
        self.shares.forget(worker.age)

    def reload(self) -> None:
        """What gunicorn does on SIGHUP, in its main loop, where no worker is half born.

        The workers and the open port outlive the execution of newer code. So there is always
        somebody who answers, and if the newer code breaks at its start, it is the old.
        """
        if not reloader.is_on:
            super().reload()
            return
        arbiter = self._arbiter
        reloader.restart(
            unless=lambda: bool({*arbiter.SIG_QUEUE} & {signal.SIGTERM, signal.SIGINT}),
            listener=arbiter.LISTENERS[0].fileno(),
            workers=list(arbiter.WORKERS),
            metrics=metrics.folder(),
        )
        raise StopIteration  # what gunicorn stops at


class _Shares:
    """How many connections each worker has, in memory that all see; made before they fork."""

    _SLOTS = 256

    def __init__(self) -> None:
        self._counts = memoryview(mmap.mmap(-1, self._SLOTS * 4)).cast("I")

    def tell(self, age: int, connections: int) -> None:
        """What a worker has; gunicorn numbers them by age."""
        # 0 is nobody's. gunicorn counts in several threads without a lock, so never below that.
        self._counts[age % self._SLOTS] = max(connections, 0) + 1

    def forget(self, age: int) -> None:
        """This worker is gone."""
        self._counts[age % self._SLOTS] = 0

    def least(self) -> int:
        """What the worker with the fewest has."""
        return min((count for count in self._counts if count), default=1) - 1


class _FairWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Leaves a new connection to a worker that has fewer.

    gunicorn's own takes all it is woken for, and the first to be woken had all of the router's
    connections in every second trial. They stay for a long time, so that half the workers did
    nothing.
    """

    def run(self) -> None:
        self._tell()
        super().run()

    def accept(self, *listener: Any) -> None:
        self._tell()
        if self.nr_conns > self.app.shares.least():
            # Whoever has fewer is awake by then, too. If it is busy, this one takes it after all.
            time.sleep(GIVE_WAY_SECONDS)
        super().accept(*listener)
        self._tell()

    def murder_keepalived(self) -> None:
        """The last thing in each turn of gunicorn's loop."""
        super().murder_keepalived()
        self._tell()

    def _tell(self) -> None:
        self.app.shares.tell(self.age, self.nr_conns)


class _PatientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Accepts nothing more when told to leave, and answers what it has accepted.

    gunicorn's own drops a connection whose request it has not begun to read, and takes up to a
    second to notice the signal.
    """

    _leaving = False

    def run(self) -> None:
        # gunicorn writes to this pipe at each signal, and leaves reading it to others.
        self.poller.register(self.PIPE[0], selectors.EVENT_READ, lambda pipe: os.read(pipe, 64))
        super().run()

    def handle_exit(self, _number: int, _frame: FrameType | None) -> None:
        if not self._leaving:
            self._leaving = True
            signal.alarm(LEAVE_SECONDS_MAX)  # nobody waits for it and would kill it
            for listener in self.sockets:
                self.poller.unregister(listener)

    def murder_keepalived(self) -> None:
        """The last thing in each turn of gunicorn's loop."""
        super().murder_keepalived()
        if self._leaving and len(self.poller.get_map()) == 1:  # the pipe
            self.alive = False


def serve(create_app: Callable[[], App], settings: HttpSettings, *, threads: int = THREADS) -> None:
    """Serves the app until a signal ends it. The app is built once, before the workers fork.

    Where code is reloaded, a connection is for one request: a kept one would lead to the old code.
    """
    listener = reloader.handed_over.get("listener")
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    options = {
        "bind": [f"{host}:{settings.http_port}" if listener is None else f"fd://{listener}"],
        "workers": settings.workers,
        "worker_class": _PatientWorker if reloader.is_on else _FairWorker,
        "threads": threads,
        "preload_app": True,
        "keepalive": 0 if reloader.is_on else KEEPALIVE_SECONDS,
        "graceful_timeout": GRACE_SECONDS,
        # Under a debugger a worker stands at a breakpoint as long as somebody looks.
        "timeout": 0 if "_pydevd_bundle" in sys.modules else STUCK_SECONDS,
        "logger_class": _Logger,
        # The heartbeat file of a worker must not wait for a disk.
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
    }
    with metrics.share_between_workers(reloader.handed_over.get("metrics")):
        _Server(create_app, options).run()
