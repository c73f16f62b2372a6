"""Redis' disk is full for a while."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import support
from tests.chaos.conftest import FAST_RETRIES
from tests.chaos.harness import PLAIN, Chaos
from tests.stack.stack import running

FULL_SECONDS = 4


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Chaos]:
    """A stack whose Redis gets an error for each byte beyond a file size limit.

    As on a full disk, and it needs no root. Without the trap the system would kill it instead.
    """
    start = f'exec {shutil.which("redis-server")} "$@"'
    support.script(tmp_path / "redis-server", f"trap '' XFSZ\n{start}")
    with running(PATH=f"{tmp_path}:{os.environ['PATH']}", **FAST_RETRIES) as stack:
        yield Chaos(stack)


def limit(process: psutil.Process, size_bytes: int) -> None:
    process.rlimit(psutil.RLIMIT_FSIZE, (size_bytes, psutil.RLIM_INFINITY))


def refused(chaos: Chaos) -> bool:
    """Sends a transaction; returns whether it was refused with 503 and Retry-After."""
    response = chaos.stack.pay()
    if response.status_code == 202:
        chaos.accepted.append(response.json()["id"])
        return False
    assert (response.status_code, response.json()["code"]) == (503, "service-unavailable")
    assert "retry-after" in response.headers
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process that runs")
def test_redis_has_no_room(limited: Chaos) -> None:
    """Writes get 503 with Retry-After until there is room again; nothing is lost.

    Redis does not exit, the connector waits, and each transaction with a 202 ends once.
    """
    chaos = limited
    process = chaos.stack.process("redis")
    with chaos.traffic(PLAIN):
        support.wait_until(lambda: chaos.statuses_of_all()["captured"], seconds_max=30, what="work")
        limit(process, 1)
        support.wait_until(lambda: refused(chaos), seconds_max=30, what="the first refusal")
        before = chaos.statuses_of_all().total()
        deadline = time.monotonic() + FULL_SECONDS
        while time.monotonic() < deadline:
            assert refused(chaos)
        assert before == chaos.statuses_of_all().total(), "nothing was half written"
        limit(process, psutil.RLIM_INFINITY)
        support.wait_until(lambda: not refused(chaos), seconds_max=30, what="room")
        time.sleep(1)
    assert process.is_running()
    chaos.check()
