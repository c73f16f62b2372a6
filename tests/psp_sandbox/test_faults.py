"""Fault injection by payment method, and for all requests."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.psp_sandbox.store import Store
from services.psp_sandbox.waiting import Waiting
from tests.psp_sandbox.sandbox import Sandbox
from tests.support import wait_until


@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        ("error_500", [500] * 4), ("rate_limited", [429] * 4), ("timeout", [504] * 4),
        ("flaky", [500, 500, 200, 200]),
    ],
)  # fmt: skip
def test_transient_faults(sandbox: Sandbox, fault: str, statuses: list[int]) -> None:
    """A failure charges nothing, for each key; only the 429 has Stripe's code and Retry-After."""
    for key in ("k1", "k2"):
        results = [sandbox.pay(key, payment_method=f"pm_sandbox_{fault}") for _ in statuses]
        assert [result.status_code for result in results] == statuses
        for result in (one for one in results if one.status_code != 200):
            hints = result.headers.get("Retry-After"), result.json["error"].get("code")
            assert hints == (("1", "rate_limit") if fault == "rate_limited" else (None, None))
    summary = sandbox.recorded()["summary"]
    captured = 2 if fault == "flaky" else 0
    assert (summary["requests"], summary["intents"]) == (8, captured)


class Meeting(Waiting):
    """A request that waits goes on when a second one, or the test, waits too."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = threading.Barrier(2, timeout=10)

    def wait(self, _environ: object, _seconds: float) -> None:
        self.barrier.wait()


def test_key_in_use() -> None:
    """While the first request of a key is in progress, others get 409; it is charged once."""
    store, meeting = Store(None), Meeting()
    sandbox = Sandbox(store, meeting)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(sandbox.pay, "k1", payment_method="pm_sandbox_slow")
        wait_until(lambda: meeting.barrier.n_waiting)
        others = [sandbox.pay("k1", payment_method="pm_sandbox_slow") for _ in range(3)]
        meeting.barrier.wait()
        assert first.result(10).status_code == 200
    [row] = sandbox.recorded()["data"]
    store.close()
    assert [result.status_code for result in others] == [409] * 3
    assert others[0].json["error"]["code"] == "idempotency_key_in_use"
    assert row["requests"] == 4


def test_two_processes_charge_a_key_once(tmp_path: Path) -> None:
    """A killed master's orphan and its successor both find no payment, and then charge."""
    stores = [Store(tmp_path / "sandbox.sqlite") for _ in range(2)]
    stores[0].check()  # The orphan has the database; SQLite lets only one process create it.
    meeting = Meeting()
    with ThreadPoolExecutor(2) as pool:
        requests = [
            pool.submit(Sandbox(store, meeting).pay, "k1", payment_method="pm_sandbox_slow")
            for store in stores
        ]
        first, second = (future.result(20) for future in requests)
    summary = Sandbox(stores[0]).recorded()["summary"]
    for store in stores:
        store.close()
    assert (first.status_code, first.json) == (200, second.json)
    assert (summary["captured"], summary["requests"]) == (1, 2)


def test_down(sandbox: Sandbox) -> None:
    """All requests to Stripe's paths fail, and no others."""
    sandbox.faults(down="unavailable")
    assert sandbox.pay("k1").status_code == 503
    assert sandbox.get("/v1/payment_intents").status_code == 503
    assert sandbox.get("/health").status_code == 200
    assert sandbox.recorded()["summary"]["requests"] == 0
    assert sandbox.get("/_sandbox/faults").json["given"] == {"unavailable": 2}
    assert sandbox.http.simulate_delete("/_sandbox/faults").status_code == 204
    assert sandbox.pay("k1").status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_web_page_cannot_switch_faults(sandbox: Sandbox, method: str) -> None:
    """Whatever its origin; Stripe's paths have no such rule."""
    sandbox.faults(down="unavailable")
    origin = {"Origin": "http://evil.example"}
    refused = sandbox.http.simulate_request(method, "/_sandbox/faults", headers=origin)
    assert refused.status_code == 403
    assert sandbox.get("/v1/payment_intents").status_code == 503


def test_error_rate_is_repeatable(sandbox: Sandbox) -> None:
    """The same seed gives the same faults, of all kinds, at about the requested rate."""
    kinds = ["error_500", "rate_limited", "unavailable"]
    series = []
    for _ in range(2):
        sandbox.faults(error_rate=0.2, kinds=kinds, seed=7)
        series.append([sandbox.get("/v1/payment_intents").status_code for _ in range(200)])
    assert series[0] == series[1]
    assert set(series[0]) == {200, 429, 500, 503}
    assert 20 <= sum(status != 200 for status in series[0]) <= 60


def test_delay(sandbox: Sandbox) -> None:
    """Each request takes at least as long as the delay."""
    started = time.monotonic()
    sandbox.faults(delay_ms=200)
    assert sandbox.get("/v1/payment_intents").status_code == 200
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(
    ("faults", "pointer"),
    [
        ({"error_rate": "0.2"}, "/error_rate"),
        ({"delay_ms": 30_001}, "/delay_ms"),
        ({"kinds": []}, "/kinds"),
        ({"kinds": ["nonsense"]}, "/kinds/0"),
        ({"nonsense": 1}, ""),
    ],
)
def test_wrong_faults(sandbox: Sandbox, faults: dict[str, object], pointer: str) -> None:
    """A 422 names the field, and nothing changes."""
    result = sandbox.faults(**faults)
    assert (result.status_code, result.json["errors"][0]["pointer"]) == (422, pointer)
    assert sandbox.get("/v1/payment_intents").status_code == 200


def test_all_cards_are_declined_on_request(sandbox: Sandbox) -> None:
    """Even a good card is declined; an earlier capture is unchanged."""
    assert sandbox.pay("k1").status_code == 200
    sandbox.faults(decline=True)
    assert sandbox.pay("k2").json["error"]["decline_code"] == "generic_decline"
    assert sandbox.pay("k1").status_code == 200
