"""The user directory of the running service."""

import threading
from pathlib import Path

import structlog

from services.auth_api.userfile import User, UsersError, load

_log = structlog.get_logger()


class UserDirectory:
    """Finds users by name; reloads a changed file at the next login.

    If the changed file is invalid, the previous users stay in force and the error is logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._users = self._load()

    def find(self, username: str) -> User | None:
        self._refresh()
        return self._users.get(username)

    def check(self) -> None:
        """Raises UsersError unless the users in force are those of the file.

        Reloads it even if it seems unchanged: the last attempt may have failed temporarily.
        """
        with self._lock:
            self._users = self._load()

    def _refresh(self) -> None:
        if self._stamp() == self._seen:
            return
        # A slower thread would put an older file's users over those of a newer one.
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            try:
                self._users = self._load()
                _log.info("users reloaded", count=len(self._users))
            except UsersError as error:
                _log.error("users not reloaded, keeping previous users", reason=str(error))

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
