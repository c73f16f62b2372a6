"""What is remembered, for how long, and what happens when the database fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.psp_sandbox.store import KEY_HOURS_MAX, Store
from tests.psp_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Iterator[Store]:
    store = Store(None, clock)
    yield store
    store.close()


def test_key_is_forgotten_after_a_day(store: Store, clock: Clock) -> None:
    """A key answers for 24 hours; then it is a new one, as at Stripe."""
    sandbox = Sandbox(store)
    first = sandbox.pay("k1").json
    clock.now += KEY_HOURS_MAX * 3600 - 1
    assert first == sandbox.pay("k1").json
    clock.now += 2
    assert first["id"] != sandbox.pay("k1").json["id"]


def test_counter_sees_a_double_capture(store: Store, clock: Clock) -> None:
    """The count of keys that paid twice is a real one: here a key was used again after its day."""
    sandbox = Sandbox(store)
    sandbox.pay("k1")
    clock.now += KEY_HOURS_MAX * 3600 + 1
    sandbox.pay("k1")
    shown = sandbox.shown(idempotency_key="k1")
    assert shown["summary"]["keys_captured_more_than_once"] == 1
    assert shown["keys"] == {"k1": {"requests": 2, "captured": 2}}


def test_sweep(store: Store, clock: Clock) -> None:
    """Old keys and payments leave a few at a time, so that the tables do not grow for ever."""
    sandbox = Sandbox(store)
    for n in range(20):
        sandbox.pay(f"old-{n}")
    clock.now += 31 * 86_400
    kept = []
    for n in range(15):
        sandbox.pay(f"new-{n}")
        kept.append(sandbox.shown()["summary"]["intents"])
    assert (kept[0], kept[-1]) == (19, 15)
    assert store.key_counts({"old-19"})["old-19"]["requests"] == 0


def test_survives_reopening(tmp_path: Path) -> None:
    """A file keeps payments and keys from one process to the next."""
    path = tmp_path / "sandbox.sqlite"
    responses = []
    for _ in range(2):
        store = Store(path)
        responses.append(Sandbox(store).pay("k1").json)
        store.close()
    assert responses[0] == responses[1]


def test_failing_database(tmp_path: Path) -> None:
    """With the database away each path says 503 in its own shape, and nothing is charged."""
    path = tmp_path / "sandbox.sqlite"
    path.write_text("this is no database, and long enough to be seen as none")
    sandbox = Sandbox(Store(path))
    result = sandbox.pay("k1")
    assert (result.status_code, result.json["error"]["type"]) == (503, "api_error")
    assert sandbox.get("/health").status_code == 503
    assert sandbox.get("/_sandbox/payment_intents").status_code == 503
