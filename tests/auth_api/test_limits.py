import contextlib
import heapq
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, cycle, repeat

import pytest

from services.auth_api.limits import OF_A_NAME, OF_AN_ADDRESS, LoginLimits
from services.common.problems import Problem, Unavailable

NAMES = [f"user{number}" for number in range(64)]
HOUR_SECONDS = 3600
SIMULATED_SECONDS = 1200


class Logins:
    """Limits with a clock that stands still unless a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.limits = LoginLimits(lambda: self.now)
        self._passwords = map(str, count())

    def fail(self, name: str, address: str = "10.0.0.1", password: str = "") -> int:
        """A failed login, by default with a new password; the Retry-After, or 0 if allowed."""
        password = password or next(self._passwords)
        try:
            assert not self.limits.attempt(name, address, password.encode(), lambda: False)
        except Problem as problem:
            return int(problem.headers["Retry-After"])
        return 0

    def wait_seconds(self, name: str, address: str = "10.0.0.1") -> int:
        """The Retry-After of the next login; an allowed one ends without an outcome."""

        def give_up() -> bool:
            raise Unavailable("too many logins")

        try:
            self.limits.attempt(name, address, b"right", give_up)
        except Unavailable:
            return 0
        except Problem as problem:
            return int(problem.headers["Retry-After"])
        raise AssertionError("`give_up` was not called")


@pytest.mark.parametrize(
    ("failing", "repeating", "seconds"),
    [(10, True, 0), (50, True, 0), (100, True, 150), (10, False, 0), (50, False, 0)],
)
def test_failing_clients_do_not_delay_other_merchants(
    failing: int, seconds: int, *, repeating: bool
) -> None:
    """50 clients that guess or repeat an old password delay no login; each further one adds 3 s.

    All are at one address and obey Retry-After. Failing clients try again a second after a 401, and
    are first at each moment. A new merchant, with the right password, comes each second.
    """
    logins = Logins()
    longest = 0.0
    clients = [("fail", number) for number in range(failing)]
    merchants = [("log in", second) for second in range(SIMULATED_SECONDS)]
    queue = [(0.0, *client) for client in clients] + [(float(m[1]), *m) for m in merchants]
    heapq.heapify(queue)
    while queue and queue[0][0] < SIMULATED_SECONDS:
        logins.now, what, number = heapq.heappop(queue)
        if what == "fail":
            wait = logins.fail(f"client{number}", password="old" if repeating else "") or 1
        else:
            wait = logins.wait_seconds(f"merchant{number}")
            longest = max(longest, logins.now + wait - number)
        if wait:
            heapq.heappush(queue, (logins.now + wait, what, number))
    assert longest <= seconds


def test_an_old_password_does_not_delay_the_right_one() -> None:
    """A client that repeats one wrong password of a merchant is refused, and only that client."""
    logins = Logins()
    hashed = 0

    def verify() -> bool:
        nonlocal hashed
        hashed += 1
        return False

    for _ in range(OF_A_NAME.failures + 1):
        assert not logins.limits.attempt("alice", "10.0.0.1", b"old", verify)
    assert hashed == 1
    assert logins.fail("alice", password="old") == OF_A_NAME.seconds
    assert logins.wait_seconds("alice") == 0


@pytest.mark.parametrize(
    ("names", "guesses_max"),
    [(repeat("alice"), 66), (map(str, count()), 1251), (cycle(NAMES), 1251)],
    ids=["one name", "each name once", "64 names"],
)
def test_guesses_in_an_hour_are_bounded(names: Iterable[str], guesses_max: int) -> None:
    """An address gets 66 guesses of one name, and 1251 in all."""
    logins, guesses, tries = Logins(), 0, iter(names)
    for second in range(HOUR_SECONDS):
        logins.now = float(second)
        while not logins.fail(next(tries)):
            guesses += 1
    assert guesses_max * 0.95 <= guesses <= guesses_max


@pytest.mark.parametrize(
    ("addresses", "others"),
    [
        (["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.9"], "10.0.0.1"),
        (["2001:db8::1", "2001:db8::ffff:1", "2001:db8::a%eth0"], "2001:db8:0:1::1"),
        (["10.0.0.1", "::ffff:10.0.0.1"], "10.0.0.2"),
    ],
)
def test_failures_count_for_one_name_at_one_machine(addresses: list[str], others: str) -> None:
    """All of 127.0.0.0/8 is one machine, and so is an IPv6 client's /64; others are not limited."""
    logins = Logins()
    for _, address in zip(range(OF_A_NAME.failures + 1), addresses * 9, strict=False):
        assert logins.fail("alice", address) == 0
    assert all(logins.wait_seconds("alice", address) == 60 for address in addresses)
    assert logins.wait_seconds("alice", others) == 0
    assert logins.wait_seconds("becky", addresses[0]) == 0


def test_a_recent_login_is_not_delayed_by_other_names() -> None:
    """The limit of an address applies to first logins, and to names that failed since theirs."""
    logins = Logins()
    assert logins.limits.attempt("alice", "10.0.0.1", b"right", lambda: True)
    for number in range(OF_AN_ADDRESS.failures + 1):
        assert logins.fail(f"user{number}") == 0
    assert (logins.wait_seconds("becky"), logins.wait_seconds("alice")) == (3, 0)
    assert logins.fail("alice") == 0
    assert logins.wait_seconds("alice") > 0


def test_the_first_success_resets_the_failures_of_the_name() -> None:
    """A later one does not: each login of a merchant would give a guesser new attempts."""
    logins = Logins()
    for _ in range(2):
        for _ in range(OF_A_NAME.failures):
            logins.fail("alice")
        assert logins.limits.attempt("alice", "10.0.0.1", b"right", lambda: True)
    logins.fail("alice")
    assert logins.wait_seconds("alice") == 60


def test_a_remembered_login_waits_for_guesses_in_flight() -> None:
    """A right guess among concurrent wrong ones is not distinguished by its status."""
    limits = LoginLimits()
    assert limits.attempt("alice", "10.0.0.1", b"right", lambda: True)
    assert limits.is_trusted("alice", "10.0.0.1")
    seen: list[bool] = []

    def verify() -> bool:
        seen.append(limits.is_trusted("alice", "10.0.0.1"))
        return False

    assert not limits.attempt("alice", "10.0.0.1", b"wrong", verify)
    assert seen == [False]


@pytest.mark.parametrize(
    ("names", "free"), [(["alice"], OF_A_NAME.failures), (NAMES, OF_AN_ADDRESS.failures)]
)
@pytest.mark.parametrize("repeating", [False, True])
def test_concurrent_guesses_are_limited(names: list[str], free: int, *, repeating: bool) -> None:
    """The limit holds for 64 concurrent guesses, for one name or for many."""
    limits = Logins().limits
    verified: list[str] = []

    def guess(number: int) -> bool | None:
        name = names[number % len(names)]

        def verify() -> bool:
            verified.append(name)
            time.sleep(0.02)
            return False

        password = b"same" if repeating else b"%d" % number
        with contextlib.suppress(Problem):
            return limits.attempt(name, "10.0.0.1", password, verify)
        return None

    with ThreadPoolExecutor(64) as threads:
        outcomes = list(threads.map(guess, range(64)))
    assert outcomes.count(False) == free + 1
    assert len(verified) <= free + 1


def test_concurrent_correct_logins_are_allowed() -> None:
    """Concurrent correct logins may wait for each other, but none is refused."""
    limits = LoginLimits()

    def log_in(_: int) -> bool:
        return limits.attempt("alice", "10.0.0.1", b"right", lambda: True)

    with ThreadPoolExecutor(64) as threads:
        assert set(threads.map(log_in, range(64))) == {True}
