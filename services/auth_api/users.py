"""A command that lists and changes the users in the JSON file.

python -m services.auth_api.users list
python -m services.auth_api.users add dora < password.txt
python -m services.auth_api.users disable dora
"""

import argparse
import getpass
import os
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from services.auth_api.passwords import PASSWORD_CHARACTERS_MAX, hash_password
from services.auth_api.settings import SHIPPED_USERS
from services.auth_api.userfile import USERNAME_CHARACTERS_MAX, User, UsersError, load, locked, save
from services.common.command import run_main

_EPILOG = """\
examples:
  $ python -m services.auth_api.users list
                1  enabled   alice
                2  enabled   becky
                3  disabled  charlie
  $ python -m services.auth_api.users add dora          asks for the password
  $ python -m services.auth_api.users add dora <password.txt
  dora: done, in services/auth_api/users.json
  $ python -m services.auth_api.users disable dora

environment:
  USERS_FILE   the file (default: services/auth_api/users.json, which is in git; not for real users)

exit codes:
  0  done
  1  unknown or existing user, invalid file or invalid password
  2  wrong usage
"""

_LINE_BYTES_MAX = 4096


def main(argv: Sequence[str], path: Path, out: TextIO, read_password: Callable[[], str]) -> int:
    """Runs the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    command, username = arguments.command, getattr(arguments, "username", "")
    try:
        users = load(path)
        if command == "list":
            for user in users:
                state = "enabled" if user.enabled else "disabled"
                out.write(f"{user.id:>15}  {state:<8}  {user.username}\n")
            return 0
        _refuse_unfit(users, command, username)
        password_hash = _new_hash(read_password()) if command == "add" else ""
        with locked(path):
            users = load(path)  # it may have changed while the password was typed
            _refuse_unfit(users, command, username)
            save(path, _changed(users, command, username, password_hash))
    except BrokenPipeError:
        raise
    except (UsersError, OSError) as error:
        sys.stderr.write(f"users: {error}\n")
        return 1
    out.write(f"{username}: done, in {path}\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command-line parser."""
    command_line = argparse.ArgumentParser(
        prog="python -m services.auth_api.users",
        description="Lists and changes users. Changes apply at the next login.\n"
        "Disable a merchant who leaves, and never delete it: its transactions name it by id.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = command_line.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="list all users")
    for command, meaning in (
        ("add", "add a user; reads the password from the terminal or standard input"),
        ("disable", "allow login, but no transactions"),
        ("enable", "allow login and transactions"),
    ):
        commands.add_parser(command, help=meaning).add_argument("username")
    return command_line


def _refuse_unfit(users: Sequence[User], command: str, username: str) -> None:
    known = any(user.username == username for user in users)
    if command != "add":
        if not known:
            raise UsersError(f"no user {username}; see `python -m services.auth_api.users list`")
        return
    if known:
        raise UsersError(f"user {username} exists already")
    if not (username.isprintable() and 1 <= len(username) <= USERNAME_CHARACTERS_MAX):
        raise UsersError(f"a name has 1 to {USERNAME_CHARACTERS_MAX} printable characters")


def _new_hash(password: str) -> str:
    if re.search("[\ud800-\udfff]", password):
        raise UsersError("the password must be UTF-8 text")
    if not 1 <= len(password) <= PASSWORD_CHARACTERS_MAX:
        raise UsersError(f"a password has 1 to {PASSWORD_CHARACTERS_MAX} characters")
    return hash_password(password)


def _changed(users: list[User], command: str, username: str, password_hash: str) -> list[User]:
    if command == "add":
        # Random, always of 15 digits: the id of a deleted user, to which transactions, points and
        # Idempotency-Keys belong, is not used again.
        number = 10**14 + secrets.randbelow(9 * 10**14)
        return [*users, User(id=number, username=username, password_hash=password_hash)]
    enabled = command == "enable"
    return [
        user.model_copy(update={"enabled": enabled}) if user.username == username else user
        for user in users
    ]


def read_password(stdin: TextIO) -> str:
    """Prompts at a terminal, else reads the first line (UTF-8, LF or CR LF)."""
    try:
        if stdin.isatty():
            return getpass.getpass("Password: ")
        return stdin.buffer.readline(_LINE_BYTES_MAX).decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsersError("the password must be UTF-8 text") from None
    except EOFError:
        raise UsersError("no password given") from None


if __name__ == "__main__":
    file = Path(os.environ.get("USERS_FILE") or SHIPPED_USERS)
    sys.exit(
        run_main(lambda: main(sys.argv[1:], file, sys.stdout, lambda: read_password(sys.stdin)))
    )
