"""`merchant smoke` passes if the contract is kept, and detects each breach."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from devtools.merchant import contract
from devtools.merchant.contract import CHECKS
from tests.devtools.merchant.conftest import at, merchant
from tests.devtools.merchant.platform import SECRET, Platform
from tests.support import free_ports

ALL = list(CHECKS)
(
    ROUTER, AUTH, CORE, USD, JPY, BHD, DECLINED, DISABLED, FOREIGN, CURRENCY, REPEATED, OLDER,
    BODY, TAMPERED, EXPIRED,
) = ALL  # fmt: skip

# The checks that fail for each breach.
BREACHES = {
    "": [],
    "503 GET /health": [ROUTER],
    "503 GET /auth/health": [AUTH],
    "503 GET /transactions/health": [CORE],
    "cents everywhere": [JPY, BHD],
    "no credit": [USD, JPY, BHD],
    "wrong balance": [USD, JPY, BHD, DECLINED],
    "never declines": [DECLINED],
    "no decline code": [DECLINED],
    "charlie may": [DISABLED],
    "no privacy": [FOREIGN],
    "any currency": [CURRENCY],
    "no idempotency": [REPEATED],
    "503 POST /transactions/transaction": [OLDER],
    "no token in the body": [BODY],
    "any token": [TAMPERED, EXPIRED],
    "no WWW-Authenticate": [TAMPERED, EXPIRED],
    "no Content-Type": [DISABLED, FOREIGN, CURRENCY, TAMPERED, EXPIRED],
    "no Location": [USD, JPY, BHD, DECLINED, FOREIGN, REPEATED, OLDER, BODY],
    "no X-Request-Id": ALL,
    "503 POST /auth/token": ALL[3:],
}


def smoke(platform: Platform, *options: str, **environ: str) -> tuple[int, list[str]]:
    """The exit code and the lines printed."""
    outcome = at(platform, "smoke", *options, environ={"PLATFORM_STATE": "/nowhere"} | environ)
    assert not [token for token in [*platform.tokens, SECRET] if token in outcome.stdout]
    return outcome.code, outcome.lines


def failed(lines: list[str]) -> list[str]:
    """The names of the checks that failed; all others passed."""
    missed = [name for line in lines if line.startswith("NOT ok") for name in ALL if name in line]
    passed = [name for line in lines if line.startswith("ok ") for name in ALL if name in line]
    assert sorted(missed + passed) == sorted(ALL)
    assert lines[-1] == f"smoke: {len(passed)} passed, {len(missed)} failed"
    return missed


@pytest.mark.parametrize("fault", BREACHES)
def test_each_breach_of_the_contract_is_detected(platform: Platform, fault: str) -> None:
    """Only the affected checks fail, with expected and actual result; exit code 1, else 0."""
    platform.fault = fault
    code, lines = smoke(platform, JWT_SECRET=SECRET)
    assert failed(lines) == BREACHES[fault]
    assert sum(line.startswith(" " * 8) for line in lines) == len(BREACHES[fault])
    assert code == bool(fault)


def test_payments_that_never_end_do_not_exceed_the_timeout(platform: Platform) -> None:
    """At the deadline the remaining checks are not tried; the exit code is 4."""
    platform.fault = "never ends"
    outcome = at(platform, "smoke", "--timeout", "0.3", environ={"JWT_SECRET": SECRET})
    assert (outcome.code, "did not respond within 0.3 s" in outcome.stderr) == (4, True)
    assert [name for name in ALL if name in outcome.stdout] == ALL[:5]


@pytest.mark.parametrize("secret", ["", SECRET[::-1]])
def test_without_the_secret_it_waits_for_a_token_to_expire(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """It prints how long and why, and detects a token that does not expire."""
    clocks = {"time": time.time, "perf_counter": time.perf_counter}
    expire = SimpleNamespace(**clocks, sleep=lambda _: platform.expired.update(platform.tokens))
    monkeypatch.setattr(contract, "time", expire)
    code, lines = smoke(platform, JWT_SECRET=secret)
    assert (code, failed(lines)) == (0, [])
    assert any("waiting 31 s for a token to expire: JWT_SECRET" in line for line in lines), lines
    monkeypatch.setattr(contract, "time", SimpleNamespace(**clocks, sleep=lambda _: None))
    _code, lines = smoke(platform, JWT_SECRET=secret)
    assert failed(lines) == [EXPIRED]


def test_it_reads_the_secret_of_the_checkouts_stack(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "jwt-secret").write_text(f"{SECRET}\n")
    code, lines = smoke(platform, PLATFORM_STATE=str(tmp_path))
    assert (code, [line for line in lines if "waiting" in line]) == (0, [])


def test_too_little_time_to_wait_is_a_failure(platform: Platform) -> None:
    code, lines = smoke(platform, "--timeout", "20")
    assert (code, failed(lines)) == (1, [EXPIRED])
    assert any("expected 31 s to wait for its end" in line for line in lines)


def test_without_a_router_no_other_check_is_tried() -> None:
    """The message has the remedy, as for every command."""
    url = f"http://127.0.0.1:{free_ports(1)}"
    outcome = merchant("smoke", "--url", url)
    assert (outcome.code, outcome.lines) == (4, [f"NOT ok  {ROUTER}"])
    assert f"nothing listens at {url}" in outcome.stderr
    assert "`platform up -D`" in outcome.stderr
