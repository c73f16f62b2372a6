"""The command line: usage, variables, output formats."""

import subprocess
import sys

import pytest

from devtools.merchant.report import money
from tests.devtools.merchant.conftest import at, merchant
from tests.devtools.merchant.platform import Platform
from tests.support import ROOT

TOKEN = "token --as alice"
NOWHERE = ("localhost:8000", "http://[::1", "http://localhost:99999")


@pytest.mark.parametrize(
    ("command", "environ", "code", "text"),
    [
        ("pay 12.50 USD --as alice", {}, 2, "for USD 12.50 write 1250"),
        ("pay 0 USD --as alice", {}, 2, "smallest unit"),
        (f"pay {'9' * 5000} USD --as alice", {}, 2, "smallest unit"),
        *(
            (f"{TOKEN} --timeout={text}", {}, 2, "argument --timeout: ")
            for text in ("0", "nan", "s")
        ),
        ("trace loyalty --as alice", {}, 2, "argument ID: invalid UUID value: 'loyalty'"),
        ("pay 1 USD --as alice --idempotency-key é", {}, 2, "must be visible ASCII characters"),
        ("token --as andr\udce9", {}, 2, "must be UTF-8"),
        (TOKEN, {"MERCHANT_PASSWORD": "\udce9"}, 2, "MERCHANT_PASSWORD must be UTF-8"),
        (TOKEN, {"PLATFORM_PORT": "x"}, 2, "PLATFORM_PORT='x': must be a number from 1024"),
        # It would replace the token, and be printed.
        (TOKEN, {"PLATFORM_URL": "http://me:hunter2@127.0.0.1:1"}, 2, "without user"),
        (f"{TOKEN} --url http://me:hunter2@127.0.0.1:1", {}, 2, "without user"),
        *((TOKEN, {"PLATFORM_URL": url}, 4, url) for url in NOWHERE),
    ],
)
def test_wrong_usage_is_explained(
    command: str, environ: dict[str, str], code: int, text: str
) -> None:
    """The message says what is valid; an address that leads nowhere ends with 4."""
    outcome = merchant(*command.split(), environ=environ)
    assert (outcome.code, outcome.stdout) == (code, "")
    assert text in outcome.stderr
    assert "hunter2" not in outcome.stderr
    assert ("--url or PLATFORM_URL" in outcome.stderr) == (code == 4)


def test_the_router_is_found_by_option_then_url_then_port(platform: Platform) -> None:
    argv = ["token", "--as", "alice"]
    port = platform.url.rpartition(":")[2]
    nowhere = "http://localhost:1"
    assert at(platform, *argv, environ={"PLATFORM_URL": nowhere}).code == 0
    for environ in (
        {"PLATFORM_URL": platform.url + "/", "PLATFORM_PORT": "1"},
        {"PLATFORM_PORT": port, "PLATFORM_URL": ""},
    ):
        assert merchant(*argv, environ=environ, servers=(platform,)).code == 0


def test_the_password_comes_from_the_environment(platform: Platform) -> None:
    """`token` prints only the token; a wrong password is never printed."""
    argv = ["token", "--as", "alice"]
    outcome = at(platform, *argv, environ={"MERCHANT_PASSWORD": "password"})
    [token] = platform.tokens
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, f"{token}\n", "")
    refused = at(platform, *argv, environ={"MERCHANT_PASSWORD": "hunter2"})
    assert refused.code == 4
    assert "hunter2" not in refused.stdout + refused.stderr


def test_help_loads_no_http_client() -> None:
    """Loading it would delay --help."""
    script = (
        "import sys; "
        "from devtools.merchant.__main__ import parser; parser().format_help(); "
        "sys.exit({'httpx', 'pydantic', 'jwt'} & set(sys.modules) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=20, check=True)


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
