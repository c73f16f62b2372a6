"""`merchant smoke`: it passes where the contract is kept, and sees each breach of it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from devtools.merchant.cli import main
from devtools.merchant.smoke import CHECKS
from tests.devtools.merchant.platform import SECRET, Platform, serving

if TYPE_CHECKING:
    from pathlib import Path

ALL = [name for name, _check in CHECKS]
(
    ROUTER, AUTH, CORE, USD, JPY, BHD, DECLINED, DISABLED, FOREIGN, CURRENCY, REPEATED, OLDER,
    BODY, TAMPERED, EXPIRED,
) = ALL  # fmt: skip
PAYMENTS = [USD, JPY, BHD, DECLINED, FOREIGN, REPEATED, OLDER, BODY]

BREACHES = {
    "failing /health": [ROUTER],
    "failing /auth/health": [AUTH],
    "failing /transactions/health": [CORE],
    "cents everywhere": [JPY, BHD],
    "no credit": [USD, JPY, BHD],
    "double credit": [USD, JPY, BHD],
    "points and ledger differ": [USD, JPY, BHD],
    "never declines": [DECLINED],
    "another decline code": [DECLINED],
    "charlie may": [DISABLED],
    "no token for charlie": [DISABLED],
    "no privacy": [FOREIGN],
    "any currency": [CURRENCY],
    "no pointers": [CURRENCY],
    "no idempotency": [REPEATED],
    "replay not said": [REPEATED],
    "no older path": [OLDER],
    "no token in the body": [BODY],
    "any signature": [TAMPERED],
    "eternal tokens": [EXPIRED],
    "another secret": [EXPIRED],
    "no WWW-Authenticate": [TAMPERED, EXPIRED],
    "errors are plain JSON": [DISABLED, FOREIGN, CURRENCY, TAMPERED, EXPIRED],
    "Location without prefix": PAYMENTS,
    "no request id": ALL,
    "503 POST /transactions": [name for name in [*PAYMENTS, DISABLED, CURRENCY] if name != OLDER],
    "503 POST /auth/token": [name for name in ALL if name not in (ROUTER, AUTH, CORE)],
}


def smoke(
    platform: Platform, *options: str, environ: dict[str, str] | None = None
) -> tuple[int, list[str]]:
    """The exit code, and the lines printed."""
    stdout = io.StringIO()
    with serving(platform):
        code = main(
            ["smoke", "--url", platform.url, *options],
            {"JWT_SECRET": SECRET} if environ is None else environ,
            stdout,
        )
    return code, stdout.getvalue().splitlines()


def failed(lines: list[str]) -> list[str]:
    """The names of the checks that were not ok."""
    return [name for line in lines if line.startswith("NOT ok") for name in ALL if name in line]


def test_a_platform_that_keeps_the_contract_passes_every_check() -> None:
    """A line for each check, the sum at the end, exit code 0."""
    code, lines = smoke(Platform())
    assert failed(lines) == []
    assert [name for line in lines if line.startswith("ok ") for name in ALL if name in line] == ALL
    assert f"smoke: {len(ALL)} passed, 0 failed" == lines[-1]
    assert code == 0


@pytest.mark.parametrize("fault", BREACHES)
def test_each_breach_of_the_contract_is_seen(fault: str) -> None:
    """Just the checks that it concerns fail, say what they expected, and the exit code is 1."""
    code, lines = smoke(Platform(fault))
    breached = sorted(BREACHES[fault])
    assert breached == sorted(failed(lines))
    assert len(breached) == sum(line.startswith("          expected: ") for line in lines)
    assert len(breached) == sum(line.startswith("          got:      ") for line in lines)
    assert f"smoke: {len(ALL) - len(breached)} passed, {len(breached)} failed" == lines[-1]
    assert code == 1


def test_every_check_can_fail() -> None:
    """For each check there is a breach that few others see."""
    concerned = {name for names in BREACHES.values() if len(names) < 6 for name in names}
    assert set(ALL) == concerned


def test_payments_that_never_end_do_not_outlast_the_time() -> None:
    """When the time is up, what was not tried counts as failed, and says so."""
    code, lines = smoke(Platform("never ends"), "--timeout", "1")
    assert [name for name in ALL if name not in (ROUTER, AUTH, CORE)] == failed(lines)
    assert "not tried: the 1 s for all checks are over" in lines[-2]
    assert f"smoke: 3 passed, {len(ALL) - 3} failed" == lines[-1]
    assert code == 1


def test_without_the_secret_it_waits_for_a_token_to_expire() -> None:
    """It says that it waits, how long and why, and then sees the 401."""
    code, lines = smoke(Platform(token_seconds=1.5), environ={})
    reason = "neither JWT_SECRET nor JWT_SECRET_FILE is set"
    assert f"        waiting 2 s for a token to expire: {reason}" in lines
    assert code == 0


def test_a_token_that_outlives_the_wait_is_seen(tmp_path: Path) -> None:
    """The road without the secret can fail too; a file that cannot be read is named."""
    environ = {"JWT_SECRET_FILE": str(tmp_path / "none")}
    _code, lines = smoke(Platform("eternal tokens", token_seconds=0), environ=environ)
    waiting = [line for line in lines if "waiting" in line]
    assert ["JWT_SECRET_FILE=" in line and "No such file" in line for line in waiting] == [True]
    assert failed(lines) == [EXPIRED]


def test_it_reads_the_secret_from_its_file(tmp_path: Path) -> None:
    """As the stack's process `smoke` does: no wait."""
    (tmp_path / "jwt-secret").write_text(f"{SECRET}\n")
    environ = {"JWT_SECRET_FILE": str(tmp_path / "jwt-secret")}
    code, lines = smoke(Platform(), environ=environ)
    assert [line for line in lines if "waiting" in line] == []
    assert code == 0


def test_no_time_left_to_wait_is_a_failure_not_a_skip() -> None:
    """A check that could not be made is not ok."""
    code, lines = smoke(Platform(), "--timeout", "20", environ={})
    assert failed(lines) == [EXPIRED]
    assert "          expected: 31 s to wait for its end" in lines
    assert code == 1


def test_without_a_router_nothing_else_is_tried() -> None:
    """One check says why and what to do; the rest counts as failed."""
    platform = Platform()
    with serving(platform):
        pass
    stdout = io.StringIO()
    assert main(["smoke", "--url", platform.url], {}, stdout) == 1
    lines = stdout.getvalue().splitlines()
    assert f"          got:      nothing listens at {platform.url}" == lines[2]
    assert "`platform up -D`" in lines[3]
    assert failed(lines) == ALL
    assert f"smoke: 0 passed, {len(ALL)} failed" == lines[-1]


def test_neither_tokens_nor_the_secret_are_printed() -> None:
    """Not even by checks that fail."""
    platform = Platform("errors are plain JSON")
    text = "\n".join(smoke(platform)[1])
    assert [token for token in [*platform.tokens, SECRET, "eyJ"] if token in text] == []
