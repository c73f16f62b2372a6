import threading
from concurrent.futures import ThreadPoolExecutor

import argon2
import pytest

from services.auth_api.passwords import CACHED_SECONDS, HASHES_AT_ONCE, Passwords
from services.common.problems import Unavailable
from tests.support import wait_until

CALLERS = HASHES_AT_ONCE + 6


class SlowCheck:
    """Takes as long as the test says; any password but `wrong` is correct."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.calls = 0
        self.now = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, _stored_hash: str, password: str) -> bool:
        with self._lock:
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.go_on.wait(10)
        with self._lock:
            self.now -= 1
        if password == "wrong":
            raise argon2.exceptions.VerifyMismatchError
        return True


@pytest.mark.parametrize(
    ("name", "password", "hashes"),
    [("alice", "right", HASHES_AT_ONCE), ("user{}", "right", CALLERS), ("alice", "wrong", CALLERS)],
)
def test_no_more_hashes_at_once_than_cores(name: str, password: str, hashes: int) -> None:
    """At most one hash runs per core; remembered logins need none."""
    check = SlowCheck()
    passwords = Passwords(check=check)
    with ThreadPoolExecutor(CALLERS) as pool:
        found = [
            pool.submit(passwords.verify, name.format(n), "hash", password) for n in range(CALLERS)
        ]
        wait_until(lambda: check.now == HASHES_AT_ONCE)
        check.go_on.set()
        assert {future.result(10) for future in found} == {password == "right"}
    assert (check.calls, check.most) == (hashes, HASHES_AT_ONCE)


def test_a_login_that_waits_too_long_is_503() -> None:
    """A login that waits too long gets 503 with Retry-After, and its hash is not computed."""
    check = SlowCheck()
    passwords = Passwords(check=check, wait_seconds_max=0.5)
    with ThreadPoolExecutor(CALLERS) as pool:
        found = [pool.submit(passwords.verify, f"u{n}", "hash", "right") for n in range(CALLERS)]
        for future in found:
            with pytest.raises(Unavailable) as refusal:
                future.result(10)
            assert refusal.value.headers["Retry-After"] == "1"
    check.go_on.set()
    wait_until(lambda: check.now == 0, what="the hashes that had begun")
    assert passwords.verify("next", "hash", "right")
    assert check.calls == HASHES_AT_ONCE + 1


def test_a_login_is_forgotten_with_its_time_or_its_hash() -> None:
    """A login is remembered for five minutes, for one user, stored hash and password."""
    now = [0.0]
    check = SlowCheck()
    check.go_on.set()
    passwords = Passwords(lambda: now[0], check=check)
    known = passwords.mark("alice", "hash", "right")
    others = [
        ("alice", "another hash", "right"),
        ("becky", "hash", "right"),
        ("alice", "hash", "x"),
    ]
    assert passwords.verify("alice", "hash", "right")
    assert passwords.is_cached(known)
    assert not any(passwords.is_cached(passwords.mark(*other)) for other in others)
    now[0] = CACHED_SECONDS
    assert not passwords.is_cached(known)
