"""The user directory of the running service."""

import contextlib
import threading
import time
from pathlib import Path

import structlog

from services.auth_api.userfile import User, UsersError, load

_log = structlog.get_logger()

_RETRY_SECONDS = 1.0


class UserDirectory:
    """Finds users by name; reloads a changed file at the next login or health check.

    If the changed file is invalid, the previous users stay in force and the error is logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._users = self._load()
        self._fault = ""
        self._tried_at = 0.0

    def find(self, username: str) -> User | None:
        if self._stamp() != self._seen:
            with self._lock, contextlib.suppress(UsersError):
                # A slower thread would put an older file's users over those of a newer one.
                if self._stamp() != self._seen:
                    self._reload()
        return self._users.get(username)

    def check(self) -> None:
        """Raises UsersError unless the users in force are those of the file.

        An unchanged file is loaded only if that failed before, perhaps temporarily, and once a
        second: anybody may request a health check, and a long file would take its time from the
        logins.
        """
        with self._lock:
            is_due = self._fault and time.monotonic() > self._tried_at + _RETRY_SECONDS
            if is_due or self._stamp() != self._seen:
                self._reload()
            elif self._fault:
                raise UsersError(self._fault)

    def _reload(self) -> None:
        stamp = self._stamp()
        is_changed, self._seen = stamp != self._seen, stamp
        try:
            self._users = self._load()
        except UsersError as error:
            self._fault, self._tried_at = str(error), time.monotonic()
            if is_changed:
                _log.error("users not reloaded, keeping previous users", reason=self._fault)
            raise
        self._fault = ""
        _log.info("users reloaded", count=len(self._users))

    def _load(self) -> dict[str, User]:
        users = {user.username: user for user in load(self._path)}
        # A container's mount of a single file has no links once a change has replaced the file.
        # Twice, as any file may have none while it is being replaced.
        if {self._stamp()[-1:] for _ in range(2)} == {(0,)}:
            raise UsersError(f"{self._path}: has been replaced: mount its folder, and restart")
        return users

    def _stamp(self) -> tuple[int, ...]:
        try:
            stat = self._path.stat()
        except OSError:
            return ()
        # ctime_ns changes with the permissions, too, so that a file made readable is loaded.
        return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_nlink)
