"""Argon2id (RFC 9106), and a memory of the logins it has verified.

Argon2id is slow by design, and a merchant logs in again every 30 seconds: without the memory the
platform would spend more on logins than on payments.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING

import argon2
from cachetools import TTLCache

from services.problems import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

PASSWORD_CHARACTERS_MAX = 256

# The least OWASP's Password Storage Cheat Sheet asks for: 19 MiB, 2 passes, 1 lane.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

REMEMBERED_SECONDS = 300
_REMEMBERED_MAX = 10_000

# One hash occupies a core and 19 MiB, so no more run at a time than there are cores; the rest
# wait so long and are then told to come back, before the router gives up on them.
_HASHES_AT_ONCE = os.cpu_count() or 1
_WAIT_SECONDS_MAX = 5.0


def hash_password(password: str) -> str:
    """The password's Argon2id hash in PHC string format."""
    return _HASHER.hash(password)


class Passwords:
    """Checks passwords, in the same time whether or not there is such a user."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        # What an unknown user's password is compared with: never equal, just as slow.
        self._nobody = _HASHER.hash(secrets.token_hex(16))
        # Memory holds only an HMAC under this key: nothing to attack offline with. The stored
        # hash is in it too, so a login is forgotten with any change of the password.
        self._key = secrets.token_bytes(32)
        self._verified: TTLCache[bytes, bool] = TTLCache(
            _REMEMBERED_MAX, REMEMBERED_SECONDS, timer=timer
        )
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(_HASHES_AT_ONCE)

    def remembers(self, username: str, stored_hash: str, password: str) -> bool:
        """Whether this very login was verified in the last five minutes."""
        mark = self._mark(username, stored_hash, password)
        with self._lock:
            return mark in self._verified

    def verify(self, username: str, stored_hash: str | None, password: str) -> bool:
        """Whether the password is the one whose hash is stored; `None` for an unknown user.

        Raises:
            Unavailable: when too many logins wait for a core.
        """
        if not self._slots.acquire(timeout=_WAIT_SECONDS_MAX):
            raise Unavailable("Too many logins at the moment.")
        try:
            matches = _HASHER.verify(stored_hash or self._nobody, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        finally:
            self._slots.release()
        if stored_hash is None:
            return False
        mark = self._mark(username, stored_hash, password)
        with self._lock:
            self._verified[mark] = True
        return matches

    def _mark(self, username: str, stored_hash: str, password: str) -> bytes:
        parts = [part.encode() for part in (username, stored_hash, password)]
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, framed, hashlib.sha256)
