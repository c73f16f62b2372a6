"""Password hashing with Argon2id (RFC 9106), and a cache of verified logins.

Argon2id is slow by design, and merchants log in every 30 seconds: without the cache, logins would
cost more CPU time than payments.
"""

import hashlib
import os
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import argon2
from cachetools import TTLCache

from services.common.problems import Unavailable

PASSWORD_CHARACTERS_MAX = 256

# The minimum of OWASP's Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

CACHED_SECONDS = 300
_CACHED_MAX = 10_000

# One hash occupies a core and 19 MiB, so at most one runs per core; the rest wait up to
# _WAIT_SECONDS_MAX, below the router's timeout, and then get 503. In dedicated threads, because
# glibc keeps the 19 MiB for each thread that has used them.
HASHES_AT_ONCE = os.cpu_count() or 1
_WAIT_SECONDS_MAX = 5.0


def hash_password(password: str) -> str:
    """Hashes a password; returns the PHC string."""
    return _HASHER.hash(_normalized(password))


def _normalized(password: str) -> str:
    """NFKC normalization (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


class Passwords:
    """Verifies passwords, in equal time whether or not the user exists."""

    def __init__(
        self,
        timer: Callable[[], float] = time.monotonic,
        *,
        check: Callable[[str, str], bool] = _HASHER.verify,
        wait_seconds_max: float = _WAIT_SECONDS_MAX,
    ) -> None:
        self._check = check
        self._wait_seconds_max = wait_seconds_max
        # For unknown users: never matches, and is just as slow.
        self._dummy_hash = _HASHER.hash(secrets.token_hex(16))
        # The cache holds only MACs under this key, useless for an offline attack. They include the
        # stored hash, so a changed password invalidates the entry.
        self._key = secrets.token_bytes(32)
        self._verified: TTLCache[bytes, bool] = TTLCache(_CACHED_MAX, CACHED_SECONDS, timer=timer)
        self._lock = threading.Lock()
        self._hashing = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="hash")

    def verify(self, username: str, stored_hash: str | None, password: str) -> bool:
        """Verifies a password against its hash, None for an unknown user; may raise Unavailable."""
        hashing = self._hashing.submit(
            self._verify,
            self.mark(username, stored_hash, password),
            stored_hash or self._dummy_hash,
            _normalized(password),
        )
        try:
            return hashing.result(self._wait_seconds_max)
        except TimeoutError:
            hashing.cancel()
            raise Unavailable("Too many logins at the moment.") from None

    def mark(self, username: str, stored_hash: str | None, password: str) -> bytes:
        """A digest that identifies the login and reveals nothing outside this process."""
        parts = [part.encode() for part in (username, stored_hash or "", _normalized(password))]
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        # Not HMAC, which releases the GIL.
        return hashlib.blake2b(framed, key=self._key, digest_size=32).digest()

    def _verify(self, mark: bytes, stored_hash: str, password: str) -> bool:
        # One hash serves concurrent identical logins.
        if self.is_cached(mark):
            return True
        try:
            self._check(stored_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        with self._lock:
            self._verified[mark] = True
        return True

    def is_cached(self, mark: bytes) -> bool:
        """Whether this login was verified in the last five minutes."""
        with self._lock:
            return mark in self._verified
