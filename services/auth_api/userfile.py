"""The JSON file of users. Imports neither Argon2 nor structlog, because preflight imports it."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from services.common import locks
from services.common.duplicates import has_duplicate_names

USERNAME_CHARACTERS_MAX = 64
LOCK_SECONDS_MAX = 10.0
# Up to 1 GiB and 9 passes: a hash that takes minutes would stop the logins of all.
_HASH = r"^\$argon2id\$v=19\$m=[1-9][0-9]{0,5},t=[1-9],p=[1-9]\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$"


class User(BaseModel):
    """One merchant."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: Annotated[int, Field(ge=1, lt=10**15)]
    username: Annotated[str, Field(min_length=1, max_length=USERNAME_CHARACTERS_MAX)]
    enabled: bool = True
    password_hash: Annotated[str, Field(pattern=_HASH)]


_USERS = TypeAdapter(list[User], config=ConfigDict(hide_input_in_errors=True))


class UsersError(Exception):
    """Invalid users file or user; the message says what is wrong."""


def load(path: Path) -> list[User]:
    """Reads the users; raises UsersError, also for two with the same name or id."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a FIFO would never end
            raise UsersError(f"{path}: not a file")
        text = path.read_bytes()
        users = _USERS.validate_json(text)
    except OSError as error:
        raise UsersError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsersError(f"{path}: {location}: {first['msg']}") from None
    if has_duplicate_names(text):
        raise UsersError(f"{path}: a user has the same field twice")
    for what in ("id", "username"):
        values = [getattr(user, what) for user in users]
        if len(set(values)) < len(values):
            raise UsersError(f"{path}: two users have the same {what}")
    return users


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other commands from changing the file, where the file system has locks.

    Raises UsersError if another process keeps the folder locked for LOCK_SECONDS_MAX.
    """
    folder = path.resolve().parent
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not locks.take(descriptor, LOCK_SECONDS_MAX):
            raise UsersError(f"{folder}: another process has locked it; `sudo lsof` names it")
        yield
    finally:
        os.close(descriptor)


def save(path: Path, users: Sequence[User]) -> None:
    """Replaces the file atomically; keeps symbolic links, the mode and, if permitted, the owner."""
    path = path.resolve()
    before = path.stat()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(_USERS.dump_json(list(users), indent=2) + b"\n")
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
