from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from services.common import store
from services.common.clock import now_ms, rfc3339
from services.psp_connector.deadletters import DeadLetters, main
from services.psp_connector.psp import Refused
from tests.psp_connector.fakes import FakePsp
from tests.psp_connector.loop import ended, make, record, running
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.psp_connector.settings import ConnectorSettings


def run(port: int, *args: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main(args, {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}, out, err)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def failed(client: Any, settings: ConnectorSettings, accept: Callable[..., str]) -> str:
    """A transaction that has failed, in the dead letters."""
    transaction_id = accept()
    with running(make(client, settings, FakePsp(lambda *_: Refused("HTTP 400")))):
        wait_until(lambda: ended(client, transaction_id))
    return transaction_id


def test_list_and_show(redis_port: int, client: Any, failed: str) -> None:
    """`list` has a line for each, `show` all that is known of one."""
    code, out, _ = run(redis_port, "list")
    assert code == 0
    assert failed in out
    assert "refused by the PSP: HTTP 400" in out
    [(letter_id, _)] = client.xrange(store.WHOLE.deadletters)
    assert failed in run(redis_port, "show", letter_id)[1]


def test_what_a_queue_entry_holds_fakes_no_line(redis_port: int, client: Any) -> None:
    """One line for each letter, and for each field of it."""
    letter = {"transaction_id": "x\ny", "reason": "\x1b[2J\nfake", "a\nb": "c"}
    letter_id = client.xadd(store.WHOLE.deadletters, letter)
    assert len(run(redis_port, "list")[1].splitlines()) == 1
    assert len(run(redis_port, "show", letter_id)[1].splitlines()) == len(letter)


def test_an_empty_list_says_so(redis_port: int, client: Any) -> None:  # noqa: ARG001
    """`none` for a person, nothing for a program."""
    assert run(redis_port, "list") == (0, "none\n", "")
    assert run(redis_port, "list", "--json") == (0, "", "")


def test_a_replayed_transaction_is_captured_after_all(
    redis_port: int, client: Any, settings: ConnectorSettings, failed: str
) -> None:
    """`replay` queues it with fresh attempts; the letter is gone, the timeline says so."""
    [(letter_id, _)] = client.xrange(store.WHOLE.deadletters)
    assert run(redis_port, "replay", letter_id)[0] == 0
    assert client.xlen(store.WHOLE.deadletters) == 0
    assert client.ttl(store.WHOLE.transaction(failed)) == -1
    with running(make(client, settings, FakePsp())):
        wait_until(lambda: ended(client, failed))
    found = record(client, failed)
    assert (found["status"], found["attempts"], found["loyalty_points"]) == ("captured", 1, 12)
    assert [e["event"] for e in found["timeline"]][-4:] == [
        "failed",
        "replayed",
        "processing",
        "captured",
    ]


def test_after_a_day_a_replay_needs_a_look(redis_port: int, client: Any, failed: str) -> None:
    """The PSP has forgotten the idempotency key: a lost answer would be a second charge."""
    client.hset(store.WHOLE.transaction(failed), "created_at", rfc3339(now_ms() - 24 * 3_600_000))
    code, out, err = run(redis_port, "replay", "--all")
    assert (code, out) == (1, "")
    assert "--not-captured" in err
    assert (record(client, failed)["status"], client.xlen(store.WHOLE.deadletters)) == ("failed", 1)
    assert run(redis_port, "replay", "--all", "--not-captured")[0] == 0
    assert (record(client, failed)["status"], client.xlen(store.WHOLE.deadletters)) == ("queued", 0)


def test_what_cannot_be_replayed_stays(redis_port: int, client: Any, failed: str) -> None:
    """A letter without a transaction, or of one that is captured, is refused in words."""
    lost = client.xadd(store.WHOLE.deadletters, {"transaction_id": "", "reason": "not an entry"})
    client.hset(store.WHOLE.transaction(failed), "status", "captured")
    code, out, err = run(redis_port, "replay", "--all")
    assert (code, out) == (1, "")
    assert "was captured" in err
    assert f"{lost}: not replayed: its transaction does not exist" in err
    assert client.xlen(store.WHOLE.deadletters) == 2


def test_many_are_listed_page_by_page(redis_port: int, client: Any) -> None:
    """More than a page of them comes out whole and once."""
    for number in range(250):
        client.xadd(store.WHOLE.deadletters, {"transaction_id": str(number), "reason": "x"})
    seen = [letter["transaction_id"] for _, letter in DeadLetters(client).all()]
    assert [str(number) for number in range(250)] == seen
    assert run(redis_port, "list")[1].count("\n") == 250


def test_redis_away_is_said_in_words() -> None:
    """No traceback when the stack is not up."""
    code, _, err = run(1, "list")
    assert code == 1
    assert "is the stack up?" in err


@pytest.mark.parametrize("args", [["show", "x"], ["replay"], ["replay", "1-1", "--all"]])
def test_wrong_words_are_refused(args: list[str]) -> None:
    """Usage errors are argparse's: exit code 2."""
    with pytest.raises(SystemExit) as left:
        run(1, *args)
    assert left.value.code == 2
