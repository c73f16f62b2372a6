"""Shared by the tests of merchant: the command, called in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest

from devtools.merchant.cli import main
from tests.devtools.merchant.platform import Network, Platform, serving

PAY = ["pay", "1250", "USD", "--as", "alice"]


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
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", io.StringIO(typed))
        try:
            code = main(argv, environ or {})
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """`merchant` reaches the fake platforms without a server."""
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=Network()))


@pytest.fixture
def platform() -> Iterator[Platform]:
    with serving(Platform()) as running:
        yield running


def at(platform: Platform, *argv: str, **more: Any) -> Outcome:
    return merchant(*argv, "--url", platform.url, **more)
