import io
from typing import Any

import pytest

from services.common.clock import now_ms, rfc3339
from services.psp_connector.deadletters import WHY_NOT, DeadLetters, main
from services.psp_connector.psp import Refused
from tests.psp_connector.payments import STORE, FakePsp, Payments


def run(port: int, *args: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    environ = {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "REDIS_REPLICAS_MIN": "1"}
    code = main(args, environ, out, err)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def failed(payments: Payments) -> str:
    """A failed transaction with a dead letter."""
    transaction_id = payments.accept()
    payments.end(FakePsp(lambda *_: Refused("HTTP 400")), transaction_id)
    return transaction_id


def test_list(redis_port: int, client: Any) -> None:
    """`list` prints a line per dead letter, over several pages; REDIS_REPLICAS_MIN is ignored.

    Without any, it and `replay --all` print `none`.
    """
    assert run(redis_port, "list") == run(redis_port, "replay", "--all") == (0, "none\n", "")
    for number in range(249):
        client.xadd(STORE.deadletters, {"transaction_id": str(number), "reason": "x"})
    client.xadd(STORE.deadletters, {"transaction_id": "x\ny", "reason": "\x1b[2J\nfake"})
    seen = [letter["transaction_id"] for _, letter in DeadLetters(client).all()]
    assert seen == [*map(str, range(249)), "x\ny"]
    code, out, _ = run(redis_port, "list")
    assert (code, len(out.splitlines())) == (0, 250)
    assert "fake" in out


def test_a_replayed_transaction_is_captured(
    redis_port: int, client: Any, payments: Payments, failed: str
) -> None:
    """`replay` queues it with fresh attempts, removes the letter, and adds to the timeline."""
    [(letter_id, _)] = client.xrange(STORE.deadletters)
    assert run(redis_port, "replay", letter_id)[0] == 0
    assert payments.letters() == []
    assert client.ttl(STORE.transaction(failed)) == -1
    payments.end(FakePsp(), failed)
    record = payments.record(failed)
    assert (record["status"], record["attempts"], record["loyalty_points"]) == ("captured", 1, 12)
    events = [e["event"] for e in record["timeline"]]
    assert events[-4:] == ["failed", "replayed", "processing", "captured"]


@pytest.mark.parametrize("why", ["captured", "declined", "queued", "processing", "old"])
def test_what_cannot_be_replayed_stays(
    redis_port: int, client: Any, payments: Payments, failed: str, why: str
) -> None:
    """A letter without a failed transaction is refused, and needs confirmation after a day."""
    lost = client.xadd(STORE.deadletters, {"transaction_id": "", "reason": "not an entry"})
    status = "failed" if why == "old" else why
    payments.change(failed, "status", status)
    if why == "old":
        payments.change(failed, "attempted_at", rfc3339(now_ms() - 24 * 3_600_000))
    code, out, err = run(redis_port, "replay", "--all")
    assert (code, out) == (1, "")
    assert WHY_NOT[why] in err
    assert ("--not-captured" in err) == (why == "old")
    assert f"{lost}: not replayed: its transaction does not exist" in err
    assert (payments.record(failed)["status"], len(payments.letters())) == (status, 2)
    run(redis_port, "replay", "--all", "--not-captured")
    is_replayed = why == "old"
    assert payments.record(failed)["status"] == ("queued" if is_replayed else status)
    assert len(payments.letters()) == 2 - is_replayed


def test_a_full_redis_replays_nothing(
    redis_port: int, client: Any, payments: Payments, failed: str
) -> None:
    """The message says that Redis is full, not that it is down."""
    client.set("partitions", 1)  # by the Core API
    client.config_set("maxmemory", "1")
    try:
        code, out, err = run(redis_port, "replay", "--all")
    finally:
        client.config_set("maxmemory", "1gb")
    assert (code, out) == (1, "")
    assert f"not replayed: {WHY_NOT['full']}" in err
    assert (payments.record(failed)["status"], len(payments.letters())) == ("failed", 1)


@pytest.mark.parametrize("letter_id", ["1-1", f"{10**19 - 1}-0", f"0-{10**19 - 1}"])
def test_a_missing_letter_is_no_fault_of_redis(redis_port: int, letter_id: str) -> None:
    """The message says that it is missing, also for the greatest valid id."""
    assert (
        f"{letter_id}: not replayed: {WHY_NOT['gone']}" in run(redis_port, "replay", letter_id)[2]
    )


def test_a_redis_that_refuses_is_not_taken_for_one_that_is_down(
    redis_port: int, client: Any
) -> None:
    """The reason is Redis' own, such as a key of the wrong type, made by hand."""
    client.set(STORE.deadletters, "x")
    code, _, err = run(redis_port, "list")
    assert (code, "WRONGTYPE" in err) == (1, True)


def test_without_redis_there_is_a_message() -> None:
    """There is no traceback when the stack is down."""
    code, _, err = run(1, "list")
    assert code == 1
    assert "is the stack up?" in err


@pytest.mark.parametrize(
    "args", [["replay", "x"], ["replay", f"{2**64}-0"], ["replay"], ["replay", "1-1", "--all"]]
)
def test_invalid_arguments_are_refused(args: list[str]) -> None:
    """The exit code of a usage error is 2."""
    with pytest.raises(SystemExit) as left:
        run(1, *args)
    assert left.value.code == 2
