"""`merchant pay`: each outcome of a payment, each failure of the platform, and its message."""

import json
import re
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.devtools.merchant.conftest import PAY, RECORD, at, merchant
from tests.devtools.merchant.platform import Platform, Stranger

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
UNKNOWN_ID = "0f8fad5b-d9cb-469f-a165-70867728950f"


def test_a_captured_payment_prints_each_hop(platform: Platform) -> None:
    """It prints token, acceptance, timeline and outcome, each with a request id; exit code 0."""
    outcome = at(platform, *PAY)
    expected = [
        rf"token +[0-9.]+ m?s  request {UUID}  for alice",
        rf"accepted +[0-9.]+ m?s  request {UUID}  transaction {UUID}",
        r"queued +\+0 ms",
        r"processing +\+\d+ ms  attempt 1",
        r"captured +\+\d+ ms",
        rf"followed +[0-9.]+ m?s  request {UUID}  the last of 1",
        r"captured  USD 12\.50  12 points  in \d+ ms",
    ]
    assert re.fullmatch("\n".join(expected) + "\n", outcome.stdout), outcome.stdout
    assert {line[19] for line in outcome.lines[:-1]} == {"s"}  # where every time ends
    assert (outcome.code, outcome.stderr) == (0, "")
    sent = [request.headers["X-Request-Id"] for request in platform.requests]
    assert re.findall(rf"request ({UUID})", outcome.stdout) == sent
    assert len(set(sent)) == len(sent)


@pytest.mark.parametrize(
    ("method", "last"),
    [
        ("pm_card_chargeDeclined", "declined  USD 12.50  generic_decline  in "),
        ("pm_sandbox_error_500", "failed  USD 12.50  attempts: 1  in "),
    ],
)
def test_a_payment_that_is_not_captured_ends_with_1(
    platform: Platform, method: str, last: str
) -> None:
    outcome = at(platform, *PAY, "--payment-method", method)
    assert (outcome.code, outcome.lines[-1].startswith(last)) == (1, True)


def test_an_open_payment_prints_how_to_check_again(platform: Platform) -> None:
    """The last line has the command, quoted for a shell; exit code 3."""
    platform.fault = "never ends"
    outcome = at(platform, *PAY, "--timeout", "0.2")
    [transaction_id] = platform.accepted
    command = f"merchant trace {transaction_id} --as alice --url {platform.url}"
    last = f"queued  USD 12.50  still open after 0.2 s; check again: {command}"
    assert (outcome.code, outcome.lines[-1]) == (3, last)


def test_a_repeat_with_the_same_key_is_marked_as_replayed(platform: Platform) -> None:
    first = at(platform, *PAY, "--idempotency-key", "order-17")
    second = at(platform, *PAY, "--idempotency-key", "order-17")
    [transaction_id] = platform.accepted
    assert first.lines[1].endswith(f"transaction {transaction_id}")
    assert second.lines[1].endswith(f"transaction {transaction_id}, replayed")


@pytest.mark.parametrize(("fault", "code"), [("a token is good once", 0), ("no token is good", 4)])
def test_an_expired_token_is_replaced_once_per_request(
    platform: Platform, fault: str, code: int
) -> None:
    """A second 401 ends the command."""
    platform.fault = fault
    outcome = at(platform, *PAY)
    assert [line.split()[0] for line in outcome.lines].count("token") == 2
    assert (outcome.code, "(invalid-token)" in outcome.stderr) == (code, code == 4)


def test_a_short_outage_is_survived(platform: Platform) -> None:
    """Polling continues."""
    platform.polls_refused = 3
    outcome = at(platform, *PAY)
    assert (outcome.code, outcome.lines[-1].split()[0]) == (0, "captured")


def test_a_long_outage_ends_with_the_id(platform: Platform) -> None:
    """The message has the accepted transaction's id and the command to check it."""
    platform.polls_refused = 10_000
    outcome = at(platform, *PAY, "--timeout", "0.2")
    [transaction_id] = platform.accepted
    assert outcome.code == 4
    assert f"{transaction_id} was accepted, but its result is unknown:" in outcome.stderr
    assert f"then: merchant trace {transaction_id} --as alice" in outcome.stderr


@pytest.mark.parametrize("fault", ["hangs up on payments", "does not respond in time to payments"])
@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ([], "it may have been accepted: check the console's payments first"),
        (["--idempotency-key", "k"], "repeat the same command: its idempotency key makes that"),
    ],
)
def test_a_payment_without_a_response_may_be_accepted(
    platform: Platform, fault: str, key: list[str], advice: str
) -> None:
    """The message says what is safe to do, and names no key that was not sent."""
    platform.fault = fault
    outcome = at(platform, *PAY, *key)
    assert (outcome.code, advice in outcome.stderr) == (4, True)
    assert "Idempotency-Key" not in outcome.stderr


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("pay 1250 USD --as charlie", "not enabled for transactions. (user-disabled)"),
        ("pay 1250 USD --as dora", "check --as and MERCHANT_PASSWORD"),
        ("pay 1250 usd --as alice", "  /currency must be an ISO 4217 code in force, in upper"),
        (f"trace {UNKNOWN_ID} --as alice", "You have no such transaction. (not-found"),
        (f"trace {UNKNOWN_ID} --as alice", "not one of this merchant's ids"),
        (f"trace {RECORD['id']} --as alice", "try again in 1 s; a service is down or full"),
    ],
)
def test_a_refusal_prints_reason_remedy_and_request_id(
    platform: Platform, command: str, text: str
) -> None:
    """They come from the problem document; exit code 4."""
    platform.fault = f"503 GET /transactions/{RECORD['id']}"
    outcome = at(platform, *command.split())
    assert (outcome.code, text in outcome.stderr) == (4, True)
    request_id = platform.requests[-1].headers["X-Request-Id"]
    assert outcome.stderr.splitlines()[-1] == f"  request {request_id}"


def test_a_platform_that_hangs_ends_with_4_at_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        outcome = merchant(*PAY, "--url", url, "--timeout", "0.1")
    assert outcome.code == 4
    assert f"{url} did not respond within 0.1 s" in outcome.stderr


def test_a_404_of_another_path_asks_for_the_address() -> None:
    """Only a transaction that was asked for can be another merchant's."""
    nothing = json.dumps({"detail": "There is nothing at this path.", "code": "not-found"}).encode()
    outcome = at(Stranger(404, nothing), "trace", UNKNOWN_ID, "--as", "alice")
    assert outcome.stderr.splitlines()[1] == (
        "  is that the platform's router? see --url or PLATFORM_URL or PLATFORM_PORT"
    )


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"null", b"[1]", b"x" * 2_000_000])
@pytest.mark.parametrize("status", [200, 404])
def test_another_program_ends_with_4(status: int, body: bytes) -> None:
    outcome = at(Stranger(status, body), *PAY)
    assert (outcome.code, outcome.stdout) == (4, "")
    assert outcome.stderr.startswith("merchant: ")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)


@settings(max_examples=50)
@given(
    wrong=st.dictionaries(
        st.sampled_from([*RECORD, "errors", "detail", "code"]), _JSON, min_size=1, max_size=3
    ),
    status=st.sampled_from([200, 202, 401, 422, 500]),
    argv=st.sampled_from([PAY, ["trace", UNKNOWN_ID], ["token"]]),
)
def test_no_response_causes_a_traceback(
    wrong: dict[str, object], status: int, argv: list[str]
) -> None:
    """Any JSON with any status leads to a documented exit code."""
    stranger = Stranger(status, json.dumps(RECORD | wrong).encode())
    outcome = at(stranger, *argv, "--as", "alice", "--timeout", "0.01")
    assert outcome.code in {0, 1, 3, 4}


def test_a_response_cannot_steer_the_terminal() -> None:
    body = json.dumps({"detail": "\x1b[2Jgone", "code": "x"}).encode()
    outcome = at(Stranger(500, body), *PAY)
    assert outcome.stderr.splitlines()[0] == r"merchant: \x1b[2Jgone (x)"
