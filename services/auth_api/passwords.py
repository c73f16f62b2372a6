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
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import argon2
from cachetools import TTLCache

from services.common.problems import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

PASSWORD_CHARACTERS_MAX = 256

# The least OWASP's Password Storage Cheat Sheet asks for: 19 MiB, 2 passes, 1 lane.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

REMEMBERED_SECONDS = 300
_REMEMBERED_MAX = 10_000

# One hash occupies a core and 19 MiB, so no more run at a time than there are cores; the rest
# wait so long and are then told to come back, before the router gives up on them. In threads of
# their own, because glibc keeps the 19 MiB for each thread that ever had them.
HASHES_AT_ONCE = os.cpu_count() or 1
_WAIT_SECONDS_MAX = 5.0


def hash_password(password: str) -> str:
    """The password's Argon2id hash in PHC string format."""
    return _HASHER.hash(_normalized(password))


def _normalized(password: str) -> str:
    """One form for all ways to type a password: NFKC, as NIST SP 800-63B, 5.1.1.2 asks for."""
    return unicodedata.normalize("NFKC", password)


class Passwords:
    """Checks passwords, in the same time whether or not there is such a user."""

    def __init__(
        self,
        timer: Callable[[], float] = time.monotonic,
        *,
        check: Callable[[str, str], bool] = _HASHER.verify,
        wait_seconds_max: float = _WAIT_SECONDS_MAX,
    ) -> None:
        self._check = check
        self._wait_seconds_max = wait_seconds_max
        # What an unknown user's password is compared with: never equal, just as slow.
        self._nobody = _HASHER.hash(secrets.token_hex(16))
        # Memory holds only an HMAC under this key: nothing to attack offline with. The stored
        # hash is in it too, so a login is forgotten with any change of the password.
        self._key = secrets.token_bytes(32)
        self._verified: TTLCache[bytes, bool] = TTLCache(
            _REMEMBERED_MAX, REMEMBERED_SECONDS, timer=timer
        )
        self._lock = threading.Lock()
        self._hashing = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="hash")

    def remembers(self, username: str, stored_hash: str, password: str) -> bool:
        """Whether this very login was verified in the last five minutes."""
        return self._knows(self._mark(username, stored_hash, _normalized(password)))

    def verify(self, username: str, stored_hash: str | None, password: str) -> bool:
        """Whether the password is the one whose hash is stored; `None` for an unknown user.

        Raises:
            Unavailable: when too many logins wait for a core.
        """
        password = _normalized(password)
        mark = self._mark(username, stored_hash, password) if stored_hash else None
        hashing = self._hashing.submit(self._verify, mark, stored_hash or self._nobody, password)
        try:
            return hashing.result(self._wait_seconds_max)
        except TimeoutError:
            hashing.cancel()
            raise Unavailable("Too many logins at the moment.") from None

    def _verify(self, mark: bytes | None, stored_hash: str, password: str) -> bool:
        # The same login may have come several times at once; one hash answers them all.
        if mark is not None and self._knows(mark):
            return True
        try:
            self._check(stored_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        if mark is None:
            return False
        with self._lock:
            self._verified[mark] = True
        return True

    def _knows(self, mark: bytes) -> bool:
        with self._lock:
            return mark in self._verified

    def _mark(self, username: str, stored_hash: str, password: str) -> bytes:
        parts = [part.encode() for part in (username, stored_hash, password)]
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, framed, hashlib.sha256)
