"""The command itself, with the real programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests import support

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "bench"]
# Two stacks have to start, which takes a slow machine a minute each.
SLOW_SECONDS_MAX = 400


@pytest.mark.timeout(SLOW_SECONDS_MAX)
def test_a_quick_look_at_one_row(tmp_path: Path) -> None:
    """It measures, shows progress, prints JSON, and keeps it with a chart."""
    done = subprocess.run(
        [*COMMAND, "--quick", "--json", "--only", "accept-direct", "--results", str(tmp_path)],
        cwd=support.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SLOW_SECONDS_MAX - 20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (result,) = told["results"]
    assert (result["name"], result["rounds"]) == ("accept-direct", 3)
    # An empty app cannot be slower than one that does something, but the machine may be unkind.
    assert 0 < result["figure"]["median"] < 2
    assert "accept-direct    3/3" in done.stderr
    (kept,) = tmp_path.glob("*-quick.json")
    assert told == json.loads(kept.read_text())
    assert kept.with_suffix(".svg").exists()


@pytest.mark.timeout(SLOW_SECONDS_MAX)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Every process that it started is gone when it is, and so are their files."""
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    command = [*COMMAND, "--quick", "--only", "accept", "--results", str(tmp_path / "results")]
    output = tmp_path / "output"
    with support.program(command, environ=environ, output=output, stop_seconds_max=60) as process:
        support.wait_until(
            lambda: "starting the floor" in output.read_text(), seconds_max=120, what="the stack"
        )
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert 128 + number == process.wait(60)
    assert len(started) > 5
    assert [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert list(tmp_path.glob("bench-*")) == []


def test_a_row_that_does_not_exist() -> None:
    """The names of the rows are told."""
    done = subprocess.run(
        [*COMMAND, "--only", "speed"],
        cwd=support.ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "accept" in done.stderr
