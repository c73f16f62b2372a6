"""Misbehaving on request: by payment method, and for all requests."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.psp_sandbox.store import Store
from services.psp_sandbox.waiting import Waiting
from tests.psp_sandbox.sandbox import Sandbox


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("pm_sandbox_error_500", 500),
        ("pm_sandbox_rate_limited", 429),
        ("pm_sandbox_timeout", 504),
    ],
)
def test_transient_faults(sandbox: Sandbox, method: str, status: int) -> None:
    """These fail each time, charge nothing, and are no final answer to a key."""
    results = [sandbox.pay("k1", payment_method=method) for _ in range(3)]
    assert [status] * 3 == [result.status_code for result in results]
    assert sandbox.shown(idempotency_key="k1")["keys"] == {"k1": {"requests": 3, "captured": 0}}


def test_rate_limited_says_when(sandbox: Sandbox) -> None:
    """429 comes with Retry-After and Stripe's code."""
    result = sandbox.pay(payment_method="pm_sandbox_rate_limited")
    assert (result.headers["Retry-After"], result.json["error"]["code"]) == ("1", "rate_limit")


def test_flaky(sandbox: Sandbox) -> None:
    """Flaky fails twice for each key and then captures."""
    for key in ("k1", "k2"):
        results = [sandbox.pay(key, payment_method="pm_sandbox_flaky") for _ in range(4)]
        assert [result.status_code for result in results] == [500, 500, 200, 200]
    assert sandbox.shown()["summary"]["captured"] == 2


def test_lost_answer(sandbox: Sandbox) -> None:
    """After a capture whose answer was held, the same key gets that answer at once."""
    sandbox.pay("k1", payment_method="pm_sandbox_timeout_after_capture")
    again = sandbox.pay("k1", payment_method="pm_sandbox_timeout_after_capture")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert sandbox.shown()["keys"] == {"k1": {"requests": 2, "captured": 1}}


class Gate(Waiting):
    """Lets a request that wants to wait do so until the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self.opened = threading.Event()

    def wait(self, _environ: object, _seconds: float) -> None:
        self.arrived.set()
        assert self.opened.wait(10)


def test_key_in_use() -> None:
    """While the first request of a key is in work, others get 409; it is charged once."""
    store, gate = Store(None), Gate()
    sandbox = Sandbox(store, gate)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(sandbox.pay, "k1", payment_method="pm_sandbox_slow")
        assert gate.arrived.wait(10)
        others = [sandbox.pay("k1", payment_method="pm_sandbox_slow") for _ in range(3)]
        gate.opened.set()
        assert first.result(10).status_code == 200
    keys = sandbox.shown()["keys"]
    store.close()
    assert [result.status_code for result in others] == [409] * 3
    assert others[0].json["error"]["code"] == "idempotency_key_in_use"
    assert keys == {"k1": {"requests": 4, "captured": 1}}


def test_many_threads_one_key(sandbox: Sandbox) -> None:
    """However many requests of one key come at once, money is captured once."""
    barrier = threading.Barrier(8)

    def pay(_n: int) -> int:
        barrier.wait(10)
        return sandbox.pay("k1").status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(pay, range(8)))
    assert statuses <= {200, 409}
    assert sandbox.shown()["keys"] == {"k1": {"requests": 8, "captured": 1}}


def test_no_place_to_wait() -> None:
    """A request that would have to wait is refused, uncharged, when all places are taken."""
    store = Store(None)
    sandbox = Sandbox(store, Waiting(count_max=0))
    methods = ("pm_sandbox_slow", "pm_sandbox_timeout", "pm_card_visa")
    statuses = [sandbox.pay(method, payment_method=method).status_code for method in methods]
    captured = sandbox.shown()["summary"]["captured"]
    store.close()
    assert (statuses, captured) == ([503, 503, 200], 1)


def test_down(sandbox: Sandbox) -> None:
    """Down, each request to Stripe's paths fails, and only those."""
    sandbox.faults(down="unavailable")
    assert sandbox.pay("k1").status_code == 503
    assert sandbox.get("/v1/balance").status_code == 503
    assert sandbox.get("/health").status_code == 200
    assert sandbox.shown()["summary"]["requests"] == 0
    assert sandbox.get("/_sandbox/faults").json["given"] == {"unavailable": 2}
    assert sandbox.http.simulate_delete("/_sandbox/faults").status_code == 204
    assert sandbox.pay("k1").status_code == 200


def test_error_rate_is_repeatable(sandbox: Sandbox) -> None:
    """The same seed makes the same series of faults, of all kinds and about as many as asked."""
    kinds = ["error_500", "rate_limited", "unavailable"]
    series = []
    for _ in range(2):
        sandbox.faults(error_rate=0.2, kinds=kinds, seed=7)
        series.append([sandbox.get("/v1/balance").status_code for _ in range(200)])
    assert series[0] == series[1]
    assert set(series[0]) == {200, 429, 500, 503}
    assert 20 <= sum(status != 200 for status in series[0]) <= 60


def test_lost_for_all(sandbox: Sandbox) -> None:
    """An answer can be lost for any request that was done."""
    sandbox.faults(down="connection_closed_after_capture")
    assert sandbox.pay("k1").status_code == 503
    sandbox.faults()
    assert sandbox.pay("k1").headers["Idempotent-Replayed"] == "true"


def test_delay(sandbox: Sandbox) -> None:
    """Slow, each request takes at least as long as was told."""
    started = time.monotonic()
    sandbox.faults(delay_ms=200)
    result = sandbox.get("/v1/balance")
    assert result.status_code == 200
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(
    ("faults", "pointer"),
    [
        ({"error_rate": 1.1}, "/error_rate"),
        ({"error_rate": "0.2"}, "/error_rate"),
        ({"delay_ms": -1}, "/delay_ms"),
        ({"delay_ms": 30_001}, "/delay_ms"),
        ({"kinds": []}, "/kinds"),
        ({"kinds": ["nonsense"]}, "/kinds/0"),
        ({"down": True}, "/down"),
        ({"nonsense": 1}, ""),
    ],
)
def test_wrong_faults(sandbox: Sandbox, faults: dict[str, object], pointer: str) -> None:
    """Faults told wrongly are a 422 that points at the field, and change nothing."""
    result = sandbox.faults(**faults)
    assert result.status_code == 422
    assert pointer == result.json["errors"][0]["pointer"]
    assert sandbox.get("/v1/balance").status_code == 200


def test_all_cards_are_declined_on_request(sandbox: Sandbox) -> None:
    """Also one that is otherwise captured; a payment that was captured before stays so."""
    assert sandbox.pay("k1").status_code == 200
    sandbox.http.simulate_put("/_sandbox/faults", json={"decline": True})
    declined = sandbox.pay("k2")
    assert declined.status_code == 402
    assert declined.json["error"]["decline_code"] == "generic_decline"
    assert sandbox.pay("k1").status_code == 200
    sandbox.http.simulate_delete("/_sandbox/faults")
    assert sandbox.pay("k3").status_code == 200
