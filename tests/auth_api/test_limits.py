import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network

import pytest
from falcon.testing import create_req

from services.auth_api.limits import (
    FREE_FAILURES_OF_A_NAME,
    FREE_FAILURES_OF_AN_ADDRESS,
    WAIT_SECONDS_MAX,
    LoginLimits,
)
from services.auth_api.resources import client_address
from services.common.problems import Problem, Unavailable

NAMES = [f"user{number}" for number in range(64)]


def frozen() -> LoginLimits:
    """Limits for which no time passes."""
    return LoginLimits(lambda: 1000.0)


def fail(limits: LoginLimits, name: str, address: str) -> None:
    assert not limits.attempt(name, address, lambda: False)


def wait_seconds(limits: LoginLimits, name: str, address: str) -> int:
    """The Retry-After of the next attempt; an allowed attempt ends without an outcome."""

    def give_up() -> bool:
        raise Unavailable("too many logins")

    try:
        limits.attempt(name, address, give_up)
    except Unavailable:
        return 0
    except Problem as problem:
        return int(problem.headers["Retry-After"])
    raise AssertionError("`give_up` was not called")


def test_waits_double_up_to_a_bound() -> None:
    """Each failure after the free ones doubles the wait, up to a minute."""
    now = 1000.0
    limits = LoginLimits(lambda: now)
    waits = []
    for _ in range(FREE_FAILURES_OF_A_NAME + 9):
        fail(limits, "alice", "10.0.0.1")
        waits.append(wait_seconds(limits, "alice", "10.0.0.1"))
        now += waits[-1]
    assert waits == [0] * FREE_FAILURES_OF_A_NAME + [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(waits) == WAIT_SECONDS_MAX


@pytest.mark.parametrize(("minutes", "waits"), [(14.9, 1), (15.1, 0)])
def test_failures_are_forgotten_after_15_minutes(minutes: float, waits: int) -> None:
    """Otherwise a typing error now and then would slow down a merchant at last."""
    now = 1000.0
    limits = LoginLimits(lambda: now)
    for _ in range(FREE_FAILURES_OF_A_NAME):
        fail(limits, "alice", "10.0.0.1")
    now += minutes * 60
    fail(limits, "alice", "10.0.0.1")
    assert wait_seconds(limits, "alice", "10.0.0.1") == waits


@pytest.mark.parametrize(
    ("addresses", "others"),
    [
        (["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.9"], "10.0.0.1"),
        (["2001:db8::1", "2001:db8::ffff:1", "2001:db8::a%eth0"], "2001:db8:0:1::1"),
        (["10.0.0.1", "::ffff:10.0.0.1"], "10.0.0.2"),
    ],
)
def test_failures_count_for_one_name_at_one_machine(addresses: list[str], others: str) -> None:
    """All of 127.0.0.0/8 is one machine, and so is an IPv6 client's /64; others are not slowed."""
    limits = frozen()
    for _, address in zip(range(FREE_FAILURES_OF_A_NAME + 1), addresses * 9, strict=False):
        fail(limits, "alice", address)
    assert all(wait_seconds(limits, "alice", address) > 0 for address in addresses)
    assert wait_seconds(limits, "alice", others) == 0
    assert wait_seconds(limits, "becky", addresses[0]) == 0


def test_many_names_from_one_address_are_slowed_down() -> None:
    """Trying one password on many names counts against the address."""
    limits = frozen()
    for number in range(FREE_FAILURES_OF_AN_ADDRESS + 1):
        fail(limits, f"user{number}", "10.0.0.1")
    assert wait_seconds(limits, "somebody", "10.0.0.1") > 0


def test_a_success_resets_the_failures_of_the_name() -> None:
    """A successful login resets the user's count of failures."""
    limits = frozen()
    for _ in range(FREE_FAILURES_OF_A_NAME):
        fail(limits, "alice", "10.0.0.1")
    assert limits.attempt("alice", "10.0.0.1", lambda: True)
    fail(limits, "alice", "10.0.0.1")
    assert wait_seconds(limits, "alice", "10.0.0.1") == 0


@pytest.mark.parametrize(
    ("names", "free"),
    [(["alice"], FREE_FAILURES_OF_A_NAME), (NAMES, FREE_FAILURES_OF_AN_ADDRESS)],
)
def test_concurrent_guesses_are_limited(names: list[str], free: int) -> None:
    """The limit holds for 64 concurrent guesses, for one name or for many."""
    limits = LoginLimits()
    verified: list[str] = []

    def guess(number: int) -> bool | None:
        name = names[number % len(names)]

        def verify() -> bool:
            verified.append(name)
            time.sleep(0.02)
            return False

        with contextlib.suppress(Problem):
            return limits.attempt(name, "10.0.0.1", verify)
        return None

    with ThreadPoolExecutor(64) as threads:
        list(threads.map(guess, range(64)))
    assert free + 1 == len(verified)


def test_concurrent_correct_logins_are_allowed() -> None:
    """Concurrent correct logins may wait for each other, but none is refused."""
    limits = LoginLimits()
    with ThreadPoolExecutor(64) as threads:
        tries = threads.map(lambda _: limits.attempt("alice", "10.0.0.1", lambda: True), range(64))
        assert set(tries) == {True}


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        ("", "9.9.9.9", "127.0.0.1"),
        ("10.0.0.0/8", "9.9.9.9", "127.0.0.1"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("127.0.0.1", "1.1.1.1, 9.9.9.9", "9.9.9.9"),
        ("127.0.0.1 10.0.0.0/8", "1.1.1.1,9.9.9.9, 10.0.0.7", "9.9.9.9"),
        ("127.0.0.1 10.0.0.0/8", "10.0.0.8,10.0.0.7", "10.0.0.8"),
        ("127.0.0.1 ::1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_only_trusted_proxies_set_the_client_address(
    proxies: str, forwarded: str | None, address: str
) -> None:
    """X-Forwarded-For is read from the right, up to the first untrusted address."""
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    req = create_req(headers=headers, remote_addr="127.0.0.1")
    assert address == client_address(req, [ip_network(name) for name in proxies.split()])
