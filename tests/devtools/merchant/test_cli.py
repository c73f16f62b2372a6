"""The command line: each way a payment ends, each way a platform fails, and what is said then."""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devtools.merchant.cli import main
from devtools.merchant.report import duration, money
from tests.devtools.merchant.platform import Platform, Reply, serving
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
PAY = ["pay", "1250", "USD", "--as", "alice"]
UNKNOWN_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


def merchant(*words: str, environ: Mapping[str, str] | None = None, typed: str = "") -> Outcome:
    """Runs the command in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    code = main(words, environ or {}, stdout, stdin=io.StringIO(typed), stderr=stderr)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def platform() -> Iterator[Platform]:
    with serving(Platform()) as running:
        yield running


def at(platform: Platform, *words: str, **more: Any) -> Outcome:
    return merchant(*words, "--url", platform.url, **more)


def test_a_captured_payment_shows_each_hop_and_ends_with_0(platform: Platform) -> None:
    """Token, acceptance, the platform's own timeline, the way it ended: a line each, aligned."""
    outcome = at(platform, *PAY)
    expected = [
        rf"token +[0-9.]+ m?s  request {UUID}  for alice",
        rf"accepted +[0-9.]+ m?s  request {UUID}  transaction {UUID}",
        r"queued +\+0 ms",
        r"processing +\+4 ms  attempt 1",
        r"captured +\+35 ms",
        rf"followed +[0-9.]+ m?s  request {UUID}  the last of 1",
        r"captured  USD 12\.50  12 points  in 35 ms",
    ]
    matched = [
        bool(re.fullmatch(pattern, line))
        for pattern, line in zip(expected, outcome.lines, strict=True)
    ]
    assert [True] * len(expected) == matched, outcome.stdout
    assert {line[19] for line in outcome.lines[:-1]} == {"s"}  # where every time ends
    assert (outcome.code, outcome.stderr) == (0, "")


def test_each_request_has_an_id_of_its_own_and_those_are_printed(platform: Platform) -> None:
    """What is printed leads to the platform's logs."""
    outcome = at(platform, *PAY)
    sent = [headers["X-Request-Id"] for _method, _path, headers in platform.requests]
    assert sent == re.findall(rf"request ({UUID})", outcome.stdout)
    assert len(set(sent)) == len(sent)


@pytest.mark.parametrize(
    ("method", "code", "last"),
    [
        ("pm_card_chargeDeclined", 1, "declined  USD 12.50  generic_decline  in 35 ms"),
        ("pm_sandbox_error_500", 1, "failed  USD 12.50  attempts: 1  in 35 ms"),
    ],
)
def test_a_payment_that_is_not_captured_ends_with_1(
    platform: Platform, method: str, code: int, last: str
) -> None:
    outcome = at(platform, *PAY, "--payment-method", method)
    assert (code, last) == (outcome.code, outcome.lines[-1])


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--timeout", "0.3"], 3, "still open after 0.3 s; look again"),
        (["--no-wait"], 0, "not waited for; look later"),
    ],
)
def test_a_payment_that_is_left_open_says_how_to_look_again(
    more: list[str], code: int, said: str
) -> None:
    """In the last line, or in the one document of --json; as a shell takes it."""
    with serving(Platform("never ends")) as platform:
        words = [*PAY, *more, "--password-stdin"]
        text = at(platform, *words, typed="password")
        document = at(platform, *words, "--json", typed="password")
    options = f"--as alice --url {platform.url} --password-stdin"
    shown = [f"{said}: merchant show {each} {options}" for each in platform.transactions]
    assert (text.code, text.lines[-1]) == (code, f"queued  USD 12.50  {shown[0]}")
    assert json.loads(document.stdout)["what_to_do"] == shown[1]


def test_a_repeat_with_the_same_key_is_shown_as_replayed(platform: Platform) -> None:
    """One transaction, whatever the number of tries."""
    first = at(platform, *PAY, "--idempotency-key", "order-17")
    second = at(platform, *PAY, "--idempotency-key", "order-17")
    (transaction_id,) = platform.transactions
    assert first.lines[1].endswith(f"transaction {transaction_id}")
    assert second.lines[1].endswith(f"transaction {transaction_id}, replayed")
    assert [first.code, second.code] == [0, 0]


def test_a_token_that_runs_out_on_the_way_is_replaced() -> None:
    """The merchant notices nothing but one more line."""
    with serving(Platform("a token is good once")) as platform:
        outcome = at(platform, *PAY)
    assert len([line for line in outcome.lines if line.startswith("token ")]) == 2
    assert outcome.code == 0


def test_a_token_that_is_never_good_is_replaced_once() -> None:
    """No loop of logins."""
    with serving(Platform("no token is good")) as platform:
        outcome = at(platform, *PAY)
    assert [path for _, path, _ in platform.requests] == ["/auth/token", "/transactions"] * 2
    assert outcome.code == 4
    assert "The token is not valid. (invalid-token)" in outcome.stderr


def test_a_platform_that_is_away_for_a_moment_is_asked_on() -> None:
    """What was accepted is followed, and the trouble is said once."""
    with serving(Platform(polls_refused=3)) as platform:
        outcome = at(platform, *PAY)
    said = [line for line in outcome.lines if line.startswith("no news: ")]
    assert said == ["no news: Redis is away.; asking on until the time is up"]
    assert (outcome.code, outcome.lines[-1].split()[0]) == (0, "captured")


def test_a_platform_that_stays_away_ends_with_4_and_the_id() -> None:
    """The payment was accepted: which one, and how to ask for it later."""
    with serving(Platform(polls_refused=10_000)) as platform:
        outcome = at(platform, *PAY, "--timeout", "0.5")
    (transaction_id,) = platform.transactions
    assert outcome.code == 4
    assert f"{transaction_id} was accepted, but what became of it?" in outcome.stderr
    assert f"then: merchant show {transaction_id} --as alice" in outcome.stderr


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ([], "look whether it was accepted before you pay again: merchant list --as alice"),
        (["--idempotency-key", "k"], "repeat the same command: its idempotency key makes that"),
    ],
)
def test_a_payment_without_an_answer_is_not_called_refused(key: list[str], advice: str) -> None:
    """Nobody knows whether it was accepted, so it says what is safe to do."""
    with serving(Platform("hangs up on payments")) as platform:
        outcome = at(platform, *PAY, *key)
    assert outcome.code == 4
    assert advice in outcome.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["pay", "1250", "USD", "--as", "charlie"],
            "not enabled for transactions. (user-disabled)",
        ),
        (["pay", "1250", "USD", "--as", "dora"], "MERCHANT_PASSWORD or --password-stdin"),
        (["pay", "1250", "ZZZ", "--as", "alice"], "  /currency must be an ISO 4217 code in force"),
        (
            ["show", UNKNOWN_ID, "--as", "alice"],
            "You have no such transaction. (not-found",
        ),
    ],
)
def test_a_refusal_says_why_what_to_do_and_the_request(
    platform: Platform, words: list[str], says: str
) -> None:
    """Exit code 4; the problem document's words and the request's id."""
    outcome = at(platform, *words)
    request_id = platform.requests[-1][2]["X-Request-Id"]
    assert outcome.code == 4
    assert says in outcome.stderr
    assert f"  request {request_id}" == outcome.stderr.splitlines()[-1]


def test_retry_after_is_passed_on() -> None:
    with serving(Platform("503 POST /transactions")) as platform:
        outcome = at(platform, *PAY)
    assert outcome.code == 4
    assert "try again in 1 s; a service is away or full" in outcome.stderr


def test_a_stack_that_is_not_there_ends_with_4_and_how_to_start_it() -> None:
    with serving(Platform()) as stopped:
        pass
    outcome = at(stopped, *PAY)
    assert (outcome.code, outcome.stdout) == (4, "")
    assert f"merchant: nothing listens at {stopped.url}" == outcome.stderr.splitlines()[0]
    assert "start the stack with `platform up -D`" in outcome.stderr


def test_a_stack_that_hangs_ends_with_4_within_the_time() -> None:
    """Something takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        outcome = merchant(*PAY, "--url", url, "--timeout", "0.3")
    assert outcome.code == 4
    assert f"{url} did not answer within 0.3 s" in outcome.stderr


class Stranger(Platform):
    """Something else on the platform's port: it answers every request the same."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__()
        self._reply = Reply(status, body)

    def answer(self, *_request: object) -> Reply:
        return self._reply


@pytest.mark.parametrize(
    "body", [b"", b"<html>hello</html>", b"[]", b"{}", b'{"token": 1}', b"x" * 2_000_000],
    ids=["empty", "html", "list", "object", "number as token", "2 MB"],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 404])
def test_what_is_not_the_platform_ends_with_4(status: int, body: bytes) -> None:
    with serving(Stranger(status, body)) as stranger:
        outcome = at(stranger, *PAY)
    assert (outcome.code, outcome.stdout) == (4, "")
    assert outcome.stderr.startswith("merchant: ")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
_LIKE_OURS = st.fixed_dictionaries(
    {},
    optional={
        "token": st.just("t") | _JSON,
        "id": st.just(UNKNOWN_ID) | _JSON,
        "amount": st.integers() | _JSON,
        "currency": st.sampled_from(["USD", "JPY"]) | _JSON,
        "payment_method": st.just("pm_card_visa") | _JSON,
        "status": st.sampled_from(["queued", "captured", "declined"]) | _JSON,
        "created_at": st.datetimes().map(lambda at: f"{at.isoformat()}Z") | _JSON,
        "updated_at": st.datetimes().map(lambda at: f"{at.isoformat()}Z") | _JSON,
        "attempts": st.just(1) | _JSON,
        "timeline": st.just([]) | _JSON,
        "errors": _JSON,
        "detail": _JSON,
        "code": _JSON,
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=_JSON | _LIKE_OURS,
    status=st.sampled_from([200, 202, 401, 422, 500]),
    words=st.sampled_from([PAY, ["show", UNKNOWN_ID], ["list"], ["loyalty"], ["token"]]),
)
def test_no_answer_whatever_makes_a_traceback(body: object, status: int, words: list[str]) -> None:
    """Any JSON under any status ends with one of the documented exit codes."""
    with serving(Stranger(status, json.dumps(body).encode())) as stranger:
        outcome = at(stranger, *words, *([] if words == PAY else ["--as", "a"]), "--timeout", "0.2")
    assert outcome.code in {0, 1, 3, 4}


def test_what_a_stranger_sends_cannot_steer_the_terminal() -> None:
    body = json.dumps({"detail": "\x1b[2Jgone", "code": "x"}).encode()
    with serving(Stranger(500, body)) as stranger:
        outcome = at(stranger, *PAY)
    assert outcome.stderr.splitlines()[0] == "merchant: ?[2Jgone (x)"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: COMMAND"),
        (["buy"], "invalid choice"),
        (["pay", "1250", "USD"], "--as"),
        (["pay", "12.50", "USD", "--as", "alice"], "for USD 12.50 write 1250"),
        (["pay", "-5", "USD", "--as", "alice"], "smallest unit"),
        (["pay", "0", "USD", "--as", "alice"], "smallest unit"),
        (["pay", "9" * 5000, "USD", "--as", "alice"], "smallest unit"),
        (["pay", "1250", "usd", "--as", "alice"], "in upper case, such as USD"),
        (["pay", "1250", "USD", "--as", ""], "not empty"),
        (["pay", "1250", "USD", "--as", "\udcff"], "UTF-8"),
        ([*PAY, "--idempotency-key", "a b"], "visible ASCII"),
        ([*PAY, "--timeout", "nan"], "number of seconds"),
        ([*PAY, "--timeout", "-1"], "number of seconds"),
        ([*PAY, "--url", "localhost:8000"], "such as http://127.0.0.1:8000"),
        ([*PAY, "--url", "http://localhost:99999"], "such as http://127.0.0.1:8000"),
        ([*PAY, "--url", "http://a:b@localhost"], "such as http://127.0.0.1:8000"),
        ([*PAY, "--url", ""], "such as http://127.0.0.1:8000"),
        ([*PAY, "--password-stdin"], "--password-stdin: must be one line"),
        (["show", "loyalty", "--as", "alice"], "must be a transaction's id"),
        (["list", "--as", "alice", "--limit", "0"], "from 1 to 100"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_how(words: list[str], says: str) -> None:
    outcome = merchant(*words)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert says in outcome.stderr


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"PLATFORM_PORT": "0"}, "PLATFORM_PORT='0': must be a number from 1024"),
        ({"PLATFORM_PORT": "eighty"}, "PLATFORM_PORT='eighty': must be a number from 1024"),
        ({"PLATFORM_URL": "ftp://localhost"}, "PLATFORM_URL: must be the router's address"),
        ({"MERCHANT_PASSWORD": "\udcff"}, "MERCHANT_PASSWORD: the password must be a text"),
    ],
)
def test_a_bad_environment_ends_with_2_and_names_the_variable(
    environ: dict[str, str], says: str
) -> None:
    outcome = merchant(*PAY, environ=environ)
    assert outcome.code == 2
    assert says in outcome.stderr


def test_the_router_is_found_by_option_then_url_then_port(platform: Platform) -> None:
    """Each in turn, the others pointing elsewhere."""
    nowhere = "http://localhost:1"
    words = ["token", "--as", "alice"]
    port = platform.url.rpartition(":")[2]
    assert merchant(*words, "--url", platform.url, environ={"PLATFORM_URL": nowhere}).code == 0
    by_url = {"PLATFORM_URL": platform.url + "/", "PLATFORM_PORT": "1"}
    assert merchant(*words, environ=by_url).code == 0
    assert merchant(*words, environ={"PLATFORM_PORT": port, "PLATFORM_URL": ""}).code == 0


def test_the_password_comes_from_stdin_or_the_environment(platform: Platform) -> None:
    """Only a good one opens; a wrong one is never shown."""
    words = ["token", "--as", "alice"]
    wrong = {"MERCHANT_PASSWORD": "hunter2"}
    assert (
        at(platform, *words, "--password-stdin", typed="\ufeffpassword\r\n", environ=wrong).code
        == 0
    )
    assert at(platform, *words, environ={"MERCHANT_PASSWORD": "password"}).code == 0
    refused = at(platform, *words, environ=wrong)
    assert refused.code == 4
    assert "hunter2" not in refused.stdout + refused.stderr


def test_token_prints_the_token_and_nothing_else(platform: Platform) -> None:
    outcome = at(platform, "token", "--as", "alice")
    (token,) = platform.tokens
    assert (0, f"{token}\n", "") == (outcome.code, outcome.stdout, outcome.stderr)


def test_show_list_and_loyalty_tell_of_a_payment(platform: Platform) -> None:
    """In the words of the one who paid."""
    at(platform, *PAY)
    (transaction_id,) = platform.transactions
    show = at(platform, "show", transaction_id, "--as", "alice")
    assert show.lines[-2] == "captured  USD 12.50  12 points  in 35 ms"
    listing = at(platform, "list", "--as", "alice")
    assert f"  {transaction_id}  USD 12.50  captured    12 points" in listing.lines[0]
    loyalty = at(platform, "loyalty", "--as", "alice")
    assert loyalty.lines[0] == "12 points"
    assert f"  +12  USD 12.50  {transaction_id}" in loyalty.lines[1]


def test_a_first_listing_says_how_to_pay(platform: Platform) -> None:
    outcome = at(platform, "list", "--as", "becky")
    assert "none; a first one: merchant pay 1250 USD --as becky" in outcome.lines[0]


def test_a_listing_that_goes_on_says_how_to_see_the_rest(platform: Platform) -> None:
    for _payment in range(2):
        at(platform, *PAY, "--no-wait")
    outcome = at(platform, "list", "--as", "alice", "--limit", "1")
    assert "older ones: merchant list --limit 1 --cursor bmV4dA --as alice" in outcome.lines[1]
    at(platform, "list", "--as", "alice", "--limit", "1", "--cursor", "bmV4dA")
    assert platform.requests[-1][1] == "/transactions?limit=1&cursor=bmV4dA"


def test_json_is_one_document_for_every_command(platform: Platform) -> None:
    """Also where it ends badly."""
    paid = json.loads(at(platform, *PAY, "--json").stdout)
    assert [hop["hop"] for hop in paid["hops"]] == ["token", "accepted", "followed"]
    assert paid["transaction"]["status"] == "captured"
    shown = at(platform, "show", paid["transaction"]["id"], "--as", "alice", "--json")
    assert paid["transaction"] == json.loads(shown.stdout)
    listed = json.loads(at(platform, "list", "--as", "alice", "--json").stdout)
    assert [paid["transaction"]] == listed["transactions"]
    assert json.loads(at(platform, "loyalty", "--as", "alice", "--json").stdout)["points"] == 12
    refused = at(platform, "pay", "1", "ZZZ", "--as", "alice", "--json")
    assert json.loads(refused.stdout)["error"]["code"] == "invalid-request"
    assert refused.code == 4


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (1250, "USD", "USD 12.50"),
        (5, "USD", "USD 0.05"),
        (500, "JPY", "JPY 500"),
        (1250, "BHD", "BHD 1.250"),
        (12345, "CLF", "CLF 1.2345"),
        (99_999_999, "EUR", "EUR 999999.99"),
        (7, "???", "??? 7 (smallest unit)"),
    ],
)
def test_money_is_shown_in_the_major_unit(amount: int, currency: str, shown: str) -> None:
    """With as many decimals as ISO 4217 gives the currency."""
    assert shown == money(amount, currency)


def test_times_are_shown_in_the_unit_that_reads_best() -> None:
    assert [duration(ms) for ms in (0.2, 35, 1420)] == ["0 ms", "35 ms", "1.42 s"]


def test_help_is_complete_and_loads_no_http_client() -> None:
    """Every command and exit code is in it; it comes at once."""
    script = (
        "import sys; from devtools.merchant.cli import main; "
        "code = main(['--help'], {}, sys.stdout); "
        "sys.exit(code or {'httpx', 'pydantic', 'jwt'} & set(sys.modules) or 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    words = [
        "pay",
        "show",
        "trace",
        "list",
        "loyalty",
        "token",
        "smoke",
        "PLATFORM_URL",
        "exit codes",
    ]
    assert [word for word in words if word not in run.stdout] == []


def test_the_program_ends_with_the_commands_code_and_no_traceback() -> None:
    """As it is started from a shell, with nothing at the other end."""
    run = subprocess.run(
        [sys.executable, "-m", "devtools.merchant", *PAY, "--url", "http://127.0.0.1:1"],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert run.returncode == 4
    assert run.stderr.startswith("merchant: nothing listens at http://127.0.0.1:1\n")
    assert "Traceback" not in run.stderr
