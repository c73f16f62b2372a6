"""The merchants who may log in, kept in a JSON file; and a command to change it.

python -m services.auth_api.users list
python -m services.auth_api.users add dora < password.txt
python -m services.auth_api.users disable dora
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import structlog
from pydantic import ValidationError

from services.auth_api.passwords import PASSWORD_CHARACTERS_MAX, hash_password
from services.auth_api.settings import SHIPPED_USERS
from services.auth_api.userfile import User, UsersError, load, save
from services.common.command import run_main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Password = Callable[[], str]

_EPILOG = """\
examples:
  $ python -m services.auth_api.users list
       1  enabled   alice
       2  enabled   becky
       3  disabled  charlie
  $ python -m services.auth_api.users add dora          asks for the password
  $ python -m services.auth_api.users add dora <password.txt
  dora: done
  $ python -m services.auth_api.users disable dora

environment:
  USERS_FILE   the file (services/auth_api/users.json)

exit codes:
  0  done
  1  there is no such user, or there is one already; the file cannot be used; a bad password
  2  wrong usage
"""

_LINE_BYTES_MAX = 4096

_log = structlog.get_logger()


class UserDirectory:
    """Finds users by name; a changed file counts from the next login on.

    A file that is broken while the service runs does not lock everybody out: the last good one
    stays in force, and the log says what is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._users = {user.username: user for user in load(path)}

    def find(self, username: str) -> User | None:
        """The user of that name, if there is one."""
        self._refresh()
        return self._users.get(username)

    def check(self) -> None:
        """Raises UsersError when the file cannot be used as it is now."""
        load(self._path)

    def _refresh(self) -> None:
        if self._stamp() == self._seen:
            return
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            try:
                self._users = {user.username: user for user in load(self._path)}
                _log.info("users reloaded", count=len(self._users))
            except UsersError as error:
                _log.error("users not reloaded, the last good ones stay", reason=str(error))

    def _stamp(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def main(argv: Sequence[str], path: Path, out: TextIO, read_password: Password) -> int:
    """The command; returns its exit code."""
    arguments = parser().parse_args(argv)
    try:
        users = load(path)
        if arguments.command == "list":
            for user in users:
                state = "enabled" if user.enabled else "disabled"
                out.write(f"{user.id:>6}  {state:<8}  {user.username}\n")
            return 0
        save(path, _change(users, arguments.command, arguments.username, read_password))
    except BrokenPipeError:
        raise
    except (UsersError, ValidationError, OSError) as error:
        sys.stderr.write(f"users: {error}\n")
        return 1
    out.write(f"{arguments.username}: done\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The words of the command."""
    words = argparse.ArgumentParser(
        prog="python -m services.auth_api.users",
        description="Shows and changes the users' file, which is read again at the next login.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = words.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="all users")
    for command, meaning in (
        ("add", "a new user; the password is read from the terminal or standard input"),
        ("disable", "may log in, but not make transactions"),
        ("enable", "may do both again"),
    ):
        commands.add_parser(command, help=meaning).add_argument("username")
    return words


def _change(users: list[User], command: str, username: str, read_password: Password) -> list[User]:
    known = any(user.username == username for user in users)
    if command == "add":
        if known:
            raise UsersError(f"there is a user {username} already")
        password = read_password()
        if re.search("[\ud800-\udfff]", password):
            raise UsersError("the password must be a text in UTF-8")
        if not 1 <= len(password) <= PASSWORD_CHARACTERS_MAX:
            raise UsersError(f"a password has 1 to {PASSWORD_CHARACTERS_MAX} characters")
        number = max((user.id for user in users), default=0) + 1
        return [*users, User(id=number, username=username, password_hash=hash_password(password))]
    if not known:
        who = "`python -m services.auth_api.users list` shows who there is"
        raise UsersError(f"there is no user {username}; {who}")
    enabled = command == "enable"
    return [
        user.model_copy(update={"enabled": enabled}) if user.username == username else user
        for user in users
    ]


def read_password(stdin: TextIO) -> str:
    """The password typed at a terminal, or the first line of a UTF-8 file (LF or CR LF).

    Raises:
        UsersError: the file is in another encoding.
    """
    if stdin.isatty():
        return getpass.getpass("Password: ")
    try:
        return stdin.buffer.readline(_LINE_BYTES_MAX).decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsersError("the password must be a text in UTF-8") from None


if __name__ == "__main__":
    file = Path(os.environ.get("USERS_FILE") or SHIPPED_USERS)
    sys.exit(
        run_main(lambda: main(sys.argv[1:], file, sys.stdout, lambda: read_password(sys.stdin)))
    )
