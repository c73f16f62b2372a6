"""`merchant smoke` passes if the contract is kept, and detects each breach."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from devtools.merchant import contract
from devtools.merchant.contract import CHECKS
from tests.devtools.merchant.conftest import at
from tests.devtools.merchant.platform import SECRET, Platform, serving

ALL = list(CHECKS)
(
    ROUTER, AUTH, CORE, USD, JPY, BHD, DECLINED, DISABLED, FOREIGN, CURRENCY, REPEATED, OLDER,
    BODY, TAMPERED, EXPIRED,
) = ALL  # fmt: skip

# The checks that fail for each breach; every check is among those of a breach of its own.
BREACHES = {
    "failing /health": [ROUTER],
    "failing /auth/health": [AUTH],
    "failing /transactions/health": [CORE],
    "cents everywhere": [JPY, BHD],
    "no credit": [USD, JPY, BHD],
    "double credit": [USD, JPY, BHD],
    "never declines": [DECLINED],
    "charlie may": [DISABLED],
    "no privacy": [FOREIGN],
    "any currency": [CURRENCY],
    "no idempotency": [REPEATED],
    "no older path": [OLDER],
    "no token in the body": [BODY],
    "any signature": [TAMPERED],
    "eternal tokens": [EXPIRED],
    "no WWW-Authenticate": [TAMPERED, EXPIRED],
    "errors are plain JSON": [DISABLED, FOREIGN, CURRENCY, TAMPERED, EXPIRED],
    "Location without prefix": [USD, JPY, BHD, DECLINED, FOREIGN, REPEATED, OLDER, BODY],
    "no request id": ALL,
    "503 POST /auth/token": ALL[3:],
}


def smoke(
    platform: Platform, *options: str, environ: dict[str, str] | None = None
) -> tuple[int, list[str]]:
    """The exit code and the lines printed."""
    own = {"JWT_SECRET": SECRET} if environ is None else environ
    with serving(platform):
        outcome = at(platform, "smoke", *options, environ={"PLATFORM_STATE": "/nowhere", **own})
    assert not [token for token in [*platform.tokens, SECRET] if token in outcome.stdout]
    return outcome.code, outcome.lines


def named(lines: list[str], mark: str) -> list[str]:
    """The names of the checks with this mark."""
    return [name for line in lines if line.startswith(mark) for name in ALL if name in line]


def test_a_platform_that_keeps_the_contract_passes() -> None:
    """It prints a line per check and the totals; exit code 0."""
    code, lines = smoke(Platform())
    assert (named(lines, "ok "), named(lines, "NOT ok")) == (ALL, [])
    assert (code, lines[-1]) == (0, f"smoke: {len(ALL)} passed, 0 failed")


@pytest.mark.parametrize("fault", BREACHES)
def test_each_breach_of_the_contract_is_detected(fault: str) -> None:
    """Only the affected checks fail, with expected and actual result; exit code 1."""
    code, lines = smoke(Platform(fault))
    failed = named(lines, "NOT ok")
    assert sorted(failed) == sorted(BREACHES[fault])
    for label in ("expected: ", "got:      "):
        assert sum(line.strip().startswith(label) for line in lines) == len(failed)
    total = f"smoke: {len(ALL) - len(failed)} passed, {len(failed)} failed"
    assert (code, lines[-1]) == (1, total)


def test_payments_that_never_end_do_not_exceed_the_timeout() -> None:
    """At the deadline the remaining checks count as failed."""
    code, lines = smoke(Platform("never ends"), "--timeout", "1")
    assert (code, named(lines, "NOT ok")) == (1, ALL[3:])
    assert "not tried: the 1 s for all checks are over" in lines[-2]


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "neither JWT_SECRET nor JWT_SECRET_FILE is set"),
        ({"JWT_SECRET_FILE": "/nowhere"}, "JWT_SECRET_FILE="),
        ({"JWT_SECRET": SECRET[::-1]}, "the platform has another JWT_SECRET"),
    ],
)
def test_without_the_secret_it_waits_for_a_token_to_expire(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], reason: str
) -> None:
    """It prints how long and why, and detects a token that does not expire."""
    platform = Platform()

    def wait(seconds: float) -> None:
        for token in platform.tokens:
            platform.tokens[token] -= seconds

    monkeypatch.setattr(contract, "time", SimpleNamespace(sleep=wait))
    code, lines = smoke(platform, environ=environ)
    assert (code, named(lines, "NOT ok")) == (0, [])
    assert any(f"waiting 31 s for a token to expire: {reason}" in line for line in lines), lines
    _code, lines = smoke(Platform("eternal tokens"), environ=environ)
    assert named(lines, "NOT ok") == [EXPIRED]


def test_it_reads_the_secret_of_the_checkouts_stack(tmp_path: Path) -> None:
    (tmp_path / "jwt-secret").write_text(f"{SECRET}\n")
    code, lines = smoke(Platform(), environ={"PLATFORM_STATE": str(tmp_path)})
    assert not [line for line in lines if "waiting" in line]
    assert code == 0


def test_too_little_time_to_wait_is_a_failure() -> None:
    code, lines = smoke(Platform(), "--timeout", "20", environ={})
    assert (code, named(lines, "NOT ok")) == (1, [EXPIRED])
    assert "          expected: 31 s to wait for its end" in lines


def test_without_a_router_no_other_check_is_tried() -> None:
    """The first check prints the remedy; the others count as failed."""
    with serving(Platform()) as stopped:
        pass
    outcome = at(stopped, "smoke")
    assert outcome.lines[2] == f"          got:      nothing listens at {stopped.url}"
    assert "`platform up -D`" in outcome.lines[3]
    assert (outcome.code, named(outcome.lines, "NOT ok")) == (1, ALL)
