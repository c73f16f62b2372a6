"""The benchmark's command, which starts its own stacks."""

import json
import os
import signal
import statistics
import sys
from pathlib import Path

import psutil
import pytest

from devtools.processes import is_gone
from tests import support

COMMAND = [sys.executable, "-m", "bench"]
# Two stacks start, which takes a slow machine a minute each.
SLOW_SECONDS_MAX = 400


@pytest.mark.timeout(SLOW_SECONDS_MAX)
def test_quick_run_of_one_row(tmp_path: Path) -> None:
    """A run measures, shows progress, prints a table, and saves its JSON with a chart."""
    args = ["--quick", "--only", "accept-direct", "--results", str(tmp_path)]
    done = support.call([*COMMAND, *args], os.environ, seconds_max=SLOW_SECONDS_MAX - 20)
    assert done.returncode == 0, done.stderr
    (saved,) = tmp_path.glob("*-quick.json")
    (result,) = json.loads(saved.read_text())["results"]
    assert (result["name"], len(result["figures"])) == ("accept-direct", 3)
    # An empty app cannot be slower than one with work to do, but the machine may be noisy.
    assert 0 < statistics.median(result["figures"]) < 2
    assert "accept-direct    3/3" in done.stderr
    assert "accept-direct" in done.stdout
    assert saved.with_suffix(".svg").exists()


@pytest.mark.timeout(SLOW_SECONDS_MAX)
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """After a signal, all started processes and their files are gone."""
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    command = [*COMMAND, "--quick", "--only", "accept", "--results", str(tmp_path / "results")]
    output = tmp_path / "output"
    with support.program(command, environ=environ, output=output, stop_seconds_max=60) as process:
        support.wait_until(
            lambda: "starting the floor" in output.read_text(), seconds_max=120, what="the stack"
        )
        started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert len(started) > 5
    left = [p for p in started if not is_gone(p)]
    for one in left:  # process-compose stops the others
        one.terminate()
    assert left == []
    assert list(tmp_path.glob("bench-*")) == []
