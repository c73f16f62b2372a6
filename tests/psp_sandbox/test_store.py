"""The store: what it keeps, for how long, and database failures."""

from pathlib import Path

from services.psp_sandbox.store import KEY_HOURS_MAX, Store
from tests.psp_sandbox.sandbox import Clock, Sandbox


def test_key_is_forgotten_after_a_day(sandbox: Sandbox, clock: Clock) -> None:
    """A key is in force for 24 hours; later use counts as a new key."""
    first = sandbox.pay("k1").json
    clock.now += KEY_HOURS_MAX * 3600 - 1
    assert first == sandbox.pay("k1").json
    clock.now += 2
    assert first["id"] != sandbox.pay("k1").json["id"]
    assert sandbox.recorded()["summary"]["keys_captured_more_than_once"] == 1


def test_sweep(sandbox: Sandbox, clock: Clock) -> None:
    """Old keys and payments are deleted a few at a time, so that the table stays bounded."""
    for n in range(20):
        sandbox.pay(f"old-{n}")
    clock.now += 31 * 86_400
    kept = []
    for n in range(15):
        sandbox.pay(f"new-{n}")
        kept.append(sandbox.recorded()["summary"]["intents"])
    assert (kept[0], kept[-1]) == (19, 15)


def test_failing_database(tmp_path: Path) -> None:
    """Without the database each path returns 503 in its own shape, and nothing is charged."""
    path = tmp_path / "sandbox.sqlite"
    path.write_text("this is no database, and long enough to be seen as none")
    sandbox = Sandbox(Store(path))
    result = sandbox.pay("k1")
    assert (result.status_code, result.json["error"]["type"]) == (503, "api_error")
    assert sandbox.get("/health").status_code == 503
    assert sandbox.get("/_sandbox/payment_intents").status_code == 503
