"""The command line: each outcome of a payment, each failure of the platform, and the message."""

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
from devtools.merchant.report import money
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


def merchant(*argv: str, environ: Mapping[str, str] | None = None, typed: str = "") -> Outcome:
    """Runs the command in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    code = main(argv, environ or {}, stdout, stdin=io.StringIO(typed), stderr=stderr)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def platform() -> Iterator[Platform]:
    with serving(Platform()) as running:
        yield running


def at(platform: Platform, *argv: str, **more: Any) -> Outcome:
    return merchant(*argv, "--url", platform.url, **more)


def test_a_captured_payment_prints_each_hop(platform: Platform) -> None:
    """Token, acceptance, timeline and outcome; each request has an id of its own; exit code 0."""
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
    assert re.fullmatch("\n".join(expected) + "\n", outcome.stdout), outcome.stdout
    assert {line[19] for line in outcome.lines[:-1]} == {"s"}  # where every time ends
    assert (outcome.code, outcome.stderr) == (0, "")
    sent = [request.headers["X-Request-Id"] for request in platform.requests]
    assert re.findall(rf"request ({UUID})", outcome.stdout) == sent
    assert len(set(sent)) == len(sent)


@pytest.mark.parametrize(
    ("method", "last"),
    [
        ("pm_card_chargeDeclined", "declined  USD 12.50  generic_decline  in 35 ms"),
        ("pm_sandbox_error_500", "failed  USD 12.50  attempts: 1  in 35 ms"),
    ],
)
def test_a_payment_that_is_not_captured_ends_with_1(
    platform: Platform, method: str, last: str
) -> None:
    outcome = at(platform, *PAY, "--payment-method", method)
    assert (outcome.code, outcome.lines[-1]) == (1, last)


def test_colours_can_be_forced(platform: Platform) -> None:
    outcome = at(platform, *PAY, environ={"FORCE_COLOR": "1"})
    assert outcome.lines[-1].startswith("\x1b[32mcaptured\x1b[0m  USD 12.50")


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (["--timeout", "0.3"], 3, "still open after 0.3 s; look again"),
        (["--no-wait"], 0, "not waited for; look later"),
    ],
)
def test_an_open_payment_prints_how_to_look_again(more: list[str], code: int, text: str) -> None:
    """In the last line or in the document of --json, quoted for a shell."""
    with serving(Platform("never ends")) as platform:
        argv = [*PAY, *more, "--password-stdin"]
        plain = at(platform, *argv, typed="password")
        document = at(platform, *argv, "--json", typed="password")
    options = f"--as alice --url {platform.url} --password-stdin"
    expected = [f"{text}: merchant show {id_} {options}" for id_ in platform.transactions]
    assert (plain.code, plain.lines[-1]) == (code, f"queued  USD 12.50  {expected[0]}")
    assert json.loads(document.stdout)["what_to_do"] == expected[1]


def test_a_repeat_with_the_same_key_is_marked_as_replayed(platform: Platform) -> None:
    first = at(platform, *PAY, "--idempotency-key", "order-17")
    second = at(platform, *PAY, "--idempotency-key", "order-17")
    [transaction_id] = platform.transactions
    assert first.lines[1].endswith(f"transaction {transaction_id}")
    assert second.lines[1].endswith(f"transaction {transaction_id}, replayed")


def test_an_expired_token_is_replaced_once_per_request() -> None:
    """A second 401 ends the command."""
    with serving(Platform("a token is good once")) as platform:
        outcome = at(platform, *PAY)
    assert [line.split()[0] for line in outcome.lines].count("token") == 2
    assert outcome.code == 0
    with serving(Platform("no token is good")) as platform:
        outcome = at(platform, *PAY)
    assert [request.path for request in platform.requests] == ["/auth/token", "/transactions"] * 2
    assert (outcome.code, "(invalid-token)" in outcome.stderr) == (4, True)


def test_a_short_outage_is_survived() -> None:
    """Polling continues, and one line mentions it."""
    with serving(Platform(polls_refused=3)) as platform:
        outcome = at(platform, *PAY)
    news = [line for line in outcome.lines if line.startswith("no news: ")]
    assert news == ["no news: Redis is away.; asking on until the time is up"]
    assert (outcome.code, outcome.lines[-1].split()[0]) == (0, "captured")


def test_a_long_outage_ends_with_the_id() -> None:
    """The payment was accepted: which one, and how to look later."""
    with serving(Platform(polls_refused=10_000)) as platform:
        outcome = at(platform, *PAY, "--timeout", "0.5")
    [transaction_id] = platform.transactions
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
def test_a_payment_without_a_response_may_be_accepted(key: list[str], advice: str) -> None:
    """The message says what is safe to do."""
    with serving(Platform("hangs up on payments")) as platform:
        outcome = at(platform, *PAY, *key)
    assert (outcome.code, advice in outcome.stderr) == (4, True)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (
            ["pay", "1250", "USD", "--as", "charlie"],
            "not enabled for transactions. (user-disabled)",
        ),
        (["pay", "1250", "USD", "--as", "dora"], "MERCHANT_PASSWORD or --password-stdin"),
        (["pay", "1250", "ZZZ", "--as", "alice"], "  /currency must be an ISO 4217 code in force"),
        (["show", UNKNOWN_ID, "--as", "alice"], "You have no such transaction. (not-found"),
    ],
)
def test_a_refusal_prints_reason_remedy_and_request_id(
    platform: Platform, argv: list[str], text: str
) -> None:
    """From the problem document; exit code 4."""
    outcome = at(platform, *argv)
    assert (outcome.code, text in outcome.stderr) == (4, True)
    request_id = platform.requests[-1].headers["X-Request-Id"]
    assert outcome.stderr.splitlines()[-1] == f"  request {request_id}"


def test_retry_after_is_passed_on() -> None:
    with serving(Platform("503 POST /transactions")) as platform:
        outcome = at(platform, *PAY)
    assert "try again in 1 s; a service is away or full" in outcome.stderr


def test_a_platform_that_hangs_ends_with_4_at_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        outcome = merchant(*PAY, "--url", url, "--timeout", "0.3")
    assert outcome.code == 4
    assert f"{url} did not answer within 0.3 s" in outcome.stderr


class Stranger(Platform):
    """Another program on the platform's port, with one response for all requests."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__()
        self._reply = Reply(status, body)

    def respond(self, *_request: object) -> Reply:
        return self._reply


@pytest.mark.parametrize("body", [b"<html>hello</html>", b'{"token": 1}', b"x" * 2_000_000])
@pytest.mark.parametrize("status", [200, 404])
def test_another_program_ends_with_4(status: int, body: bytes) -> None:
    with serving(Stranger(status, body)) as stranger:
        outcome = at(stranger, *PAY)
    assert (outcome.code, outcome.stdout) == (4, "")
    assert outcome.stderr.startswith("merchant: ")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
_VALID = {
    "token": st.just("t"),
    "id": st.just(UNKNOWN_ID),
    "amount": st.integers(),
    "currency": st.sampled_from(["USD", "JPY"]),
    "payment_method": st.just("pm_card_visa"),
    "status": st.sampled_from(["queued", "captured", "declined"]),
    "created_at": st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
    "updated_at": st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
    "attempts": st.just(1),
    "timeline": st.just([]),
}
_LIKE_OURS = st.fixed_dictionaries(
    {},
    optional={name: valid | _JSON for name, valid in _VALID.items()}
    | dict.fromkeys(("errors", "detail", "code"), _JSON),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=_JSON | _LIKE_OURS,
    status=st.sampled_from([200, 202, 401, 422, 500]),
    argv=st.sampled_from([PAY, ["show", UNKNOWN_ID], ["list"], ["loyalty"], ["token"]]),
)
def test_no_response_causes_a_traceback(body: object, status: int, argv: list[str]) -> None:
    """Any JSON with any status leads to a documented exit code."""
    with serving(Stranger(status, json.dumps(body).encode())) as stranger:
        outcome = at(stranger, *argv, *([] if argv == PAY else ["--as", "a"]), "--timeout", "0.2")
    assert outcome.code in {0, 1, 3, 4}


def test_a_response_cannot_steer_the_terminal() -> None:
    body = json.dumps({"detail": "\x1b[2Jgone", "code": "x"}).encode()
    with serving(Stranger(500, body)) as stranger:
        outcome = at(stranger, *PAY)
    assert outcome.stderr.splitlines()[0] == r"merchant: \x1b[2Jgone (x)"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "required: COMMAND"),
        (["buy"], "invalid choice"),
        (["pay", "1250", "USD"], "--as"),
        (["pay", "12.50", "USD", "--as", "alice"], "for USD 12.50 write 1250"),
        (["pay", "0", "USD", "--as", "alice"], "smallest unit"),
        (["pay", "9" * 5000, "USD", "--as", "alice"], "smallest unit"),
        (["pay", "1250", "usd", "--as", "alice"], "in upper case, such as USD"),
        (["pay", "1250", "USD", "--as", ""], "not empty"),
        (["pay", "1250", "USD", "--as", "\udcff"], "UTF-8"),
        ([*PAY, "--idempotency-key", "a b"], "visible ASCII"),
        ([*PAY, "--timeout", "nan"], "number of seconds"),
        ([*PAY, "--timeout", "0"], "number of seconds"),
        ([*PAY, "--url", "localhost:8000"], "such as http://127.0.0.1:8000"),
        ([*PAY, "--url", "http://localhost:99999"], "such as http://127.0.0.1:8000"),
        ([*PAY, "--url", "http://a:b@localhost"], "such as http://127.0.0.1:8000"),
        ([*PAY, "--password-stdin"], "--password-stdin: must be one line"),
        (["show", "loyalty", "--as", "alice"], "must be a transaction's id"),
        (["list", "--as", "alice", "--limit", "101"], "from 1 to 100"),
    ],
)
def test_wrong_usage_ends_with_2(argv: list[str], text: str) -> None:
    """The message says what would be right."""
    outcome = merchant(*argv)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert text in outcome.stderr


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"PLATFORM_PORT": "eighty"}, "PLATFORM_PORT='eighty': must be a number from 1024"),
        ({"PLATFORM_URL": "ftp://localhost"}, "PLATFORM_URL: must be the router's address"),
        ({"MERCHANT_PASSWORD": "\udcff"}, "MERCHANT_PASSWORD: the password must be a text"),
    ],
)
def test_a_wrong_variable_ends_with_2(environ: dict[str, str], text: str) -> None:
    outcome = merchant(*PAY, environ=environ)
    assert (outcome.code, text in outcome.stderr) == (2, True)


def test_the_router_is_found_by_option_then_url_then_port(platform: Platform) -> None:
    argv = ["token", "--as", "alice"]
    port = platform.url.rpartition(":")[2]
    nowhere = "http://localhost:1"
    assert merchant(*argv, "--url", platform.url, environ={"PLATFORM_URL": nowhere}).code == 0
    by_url = {"PLATFORM_URL": platform.url + "/", "PLATFORM_PORT": "1"}
    assert merchant(*argv, environ=by_url).code == 0
    assert merchant(*argv, environ={"PLATFORM_PORT": port, "PLATFORM_URL": ""}).code == 0


def test_the_password_comes_from_stdin_or_the_environment(platform: Platform) -> None:
    """`token` prints the token and nothing else; a wrong password is never printed."""
    argv, wrong = ["token", "--as", "alice"], {"MERCHANT_PASSWORD": "hunter2"}
    typed = at(platform, *argv, "--password-stdin", typed="\ufeffpassword\r\n", environ=wrong)
    [token] = platform.tokens
    assert (typed.code, typed.stdout, typed.stderr) == (0, f"{token}\n", "")
    assert at(platform, *argv, environ={"MERCHANT_PASSWORD": "password"}).code == 0
    refused = at(platform, *argv, environ=wrong)
    assert refused.code == 4
    assert "hunter2" not in refused.stdout + refused.stderr


def test_show_list_and_loyalty_print_a_payment(platform: Platform) -> None:
    at(platform, *PAY)
    [transaction_id] = platform.transactions
    show = at(platform, "show", transaction_id, "--as", "alice")
    assert show.lines[-2] == "captured  USD 12.50  12 points  in 35 ms"
    listing = at(platform, "list", "--as", "alice")
    assert f"  {transaction_id}  USD 12.50  captured    12 points" in listing.lines[0]
    loyalty = at(platform, "loyalty", "--as", "alice")
    assert loyalty.lines[0] == "12 points"
    assert f"  +12  USD 12.50  {transaction_id}" in loyalty.lines[1]


def test_a_listing_prints_the_next_command(platform: Platform) -> None:
    """Empty: how to pay; cut off: how to see the rest."""
    empty = at(platform, "list", "--as", "becky")
    assert "none; a first one: merchant pay 1250 USD --as becky" in empty.lines[0]
    for _payment in range(2):
        at(platform, *PAY, "--no-wait")
    outcome = at(platform, "list", "--as", "alice", "--limit", "1")
    assert "older ones: merchant list --limit 1 --cursor bmV4dA --as alice" in outcome.lines[1]
    at(platform, "list", "--as", "alice", "--limit", "1", "--cursor", "bmV4dA")
    assert platform.requests[-1].path == "/transactions?limit=1&cursor=bmV4dA"


def test_json_is_one_document_for_every_command(platform: Platform) -> None:
    """Also for an error."""
    paid = json.loads(at(platform, *PAY, "--json").stdout)
    assert [hop["hop"] for hop in paid["hops"]] == ["token", "accepted", "followed"]
    assert paid["transaction"]["status"] == "captured"
    shown = at(platform, "show", paid["transaction"]["id"], "--as", "alice", "--json")
    assert json.loads(shown.stdout) == paid["transaction"]
    listed = json.loads(at(platform, "list", "--as", "alice", "--json").stdout)
    assert listed["transactions"] == [paid["transaction"]]
    assert json.loads(at(platform, "loyalty", "--as", "alice", "--json").stdout)["points"] == 12
    refused = at(platform, "pay", "1", "ZZZ", "--as", "alice", "--json")
    assert json.loads(refused.stdout)["error"]["code"] == "invalid-request"


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (5, "USD", "USD 0.05"),
        (500, "JPY", "JPY 500"),
        (1250, "BHD", "BHD 1.250"),
        (12345, "CLF", "CLF 1.2345"),
        (7, "???", "??? 7 (smallest unit)"),
    ],
)
def test_money_has_the_decimals_of_its_currency(amount: int, currency: str, text: str) -> None:
    assert money(amount, currency) == text


def test_help_loads_no_http_client() -> None:
    """So that it comes at once."""
    script = (
        "import sys; from devtools.merchant.cli import main; "
        "code = main(['--help'], {}, sys.stdout); "
        "sys.exit(code or {'httpx', 'pydantic', 'jwt'} & set(sys.modules) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=20, check=True)


def test_without_a_stack_the_program_prints_how_to_start_it() -> None:
    """Started as in a shell: exit code 4, no traceback."""
    run = subprocess.run(
        [sys.executable, "-m", "devtools.merchant", *PAY, "--url", "http://127.0.0.1:1"],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (4, "")
    assert run.stderr.startswith(
        "merchant: nothing listens at http://127.0.0.1:1\n  start the stack with `platform up -D`\n"
    )
