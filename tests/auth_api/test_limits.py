from __future__ import annotations

import pytest

from services.auth_api.limits import (
    FREE_FAILURES_OF_A_NAME,
    FREE_FAILURES_OF_AN_ADDRESS,
    WAIT_SECONDS_MAX,
    LoginLimits,
)
from services.auth_api.passwords import REMEMBERED_SECONDS, Passwords, hash_password
from services.problems import Problem


class Timer:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def wait_seconds(limits: LoginLimits, name: str, address: str) -> int:
    try:
        limits.check(name, address)
    except Problem as problem:
        return int(problem.headers["Retry-After"])
    return 0


def test_waits_double_up_to_a_bound() -> None:
    """Past the free failures each further one doubles the wait, and a minute is the most."""
    timer = Timer()
    limits = LoginLimits(timer)
    waits = []
    for _ in range(FREE_FAILURES_OF_A_NAME + 9):
        limits.failed("alice", "10.0.0.1")
        waits.append(wait_seconds(limits, "alice", "10.0.0.1"))
        timer.now += waits[-1]
    assert [0] * FREE_FAILURES_OF_A_NAME + [1, 2, 4, 8, 16, 32, 60, 60, 60] == waits
    assert WAIT_SECONDS_MAX == max(waits)


def test_another_address_is_not_held_up() -> None:
    """An attacker's failures slow the attacker down, not the merchant elsewhere."""
    limits = LoginLimits(Timer())
    for _ in range(20):
        limits.failed("alice", "10.0.0.1")
    assert wait_seconds(limits, "alice", "10.0.0.1") > 0
    assert 0 == wait_seconds(limits, "alice", "10.0.0.2")
    assert 0 == wait_seconds(limits, "becky", "10.0.0.1")


def test_many_names_from_one_address_are_slowed_down() -> None:
    """Trying one password on many names counts against the address."""
    limits = LoginLimits(Timer())
    for number in range(FREE_FAILURES_OF_AN_ADDRESS + 1):
        limits.failed(f"user{number}", "10.0.0.1")
    assert wait_seconds(limits, "somebody", "10.0.0.1") > 0


def test_a_success_forgets_the_failures_of_the_name() -> None:
    """Who logs in after a few typos starts afresh."""
    limits = LoginLimits(Timer())
    for _ in range(FREE_FAILURES_OF_A_NAME):
        limits.failed("alice", "10.0.0.1")
    limits.succeeded("alice", "10.0.0.1")
    limits.failed("alice", "10.0.0.1")
    assert 0 == wait_seconds(limits, "alice", "10.0.0.1")


@pytest.mark.parametrize(
    ("name", "stored", "password", "seconds", "remembered"),
    [
        ("alice", "same", "password", 0, True),
        ("alice", "same", "password", REMEMBERED_SECONDS - 1, True),
        ("alice", "same", "password", REMEMBERED_SECONDS, False),
        ("alice", "same", "other", 0, False),
        ("becky", "same", "password", 0, False),
        ("alice", "changed", "password", 0, False),
    ],
)
def test_a_login_is_remembered_for_five_minutes_and_no_other(
    name: str, stored: str, password: str, seconds: int, *, remembered: bool
) -> None:
    """Only the same name, stored hash and password are remembered, and not for long."""
    timer = Timer()
    passwords = Passwords(timer)
    hashed = {"same": hash_password("password"), "changed": hash_password("password")}
    assert passwords.verify("alice", hashed["same"], "password")
    timer.now += seconds
    assert remembered is passwords.remembers(name, hashed[stored], password)


def test_a_failed_login_is_not_remembered() -> None:
    """A wrong password is checked anew each time."""
    passwords = Passwords()
    stored = hash_password("password")
    assert not passwords.verify("alice", stored, "wrong")
    assert not passwords.remembers("alice", stored, "wrong")
