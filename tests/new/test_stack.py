"""The stack with a service of each kind.

One test: xdist starts a module's fixture in each process that runs one of its tests.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.health import is_healthy
from tests import support
from tests.new.tree import KINDS, Tree
from tests.stack.stack import Stack, request_id, running


@pytest.fixture
def stack(grown: Tree) -> Iterator[Stack]:
    """The copy's stack, healthy."""
    with running(
        port=support.free_ports(20),
        PLATFORM_CODE=str(grown.folder),
        PC_CONFIG_FILES=str(grown.folder / "process-compose.yaml"),
        PYTHONPATH=str(grown.folder),
        LOG_FORMAT="json",
    ) as stack:
        stack.wait_for_log("ready", "The platform is healthy")
        yield stack


def lines(stack: Stack, name: str, request: str) -> list[dict[str, Any]]:
    """The log lines of a process about a request."""
    found = [json.loads(line) for line in stack.log(name).splitlines() if line.startswith("{")]
    return [line for line in found if line.get("request_id") == request]


def test_new_services_behave_like_the_others(stack: Stack, grown: Tree) -> None:
    """Their routes respond, the worker does its jobs, and the doctor knows them."""
    for route in ("extra", "extra-redis"):
        assert_routed(stack, route)
    assert_job_done(stack)
    assert_scaled(stack)
    assert_known_to_doctor(stack, grown)


def assert_routed(stack: Stack, route: str) -> None:
    """The example route responds; the request id is in the response and in both logs, as JSON."""
    request = request_id()
    result = stack.http.post(
        f"/{route}/greeting", json={"name": "Ada"}, headers={"X-Request-Id": request}
    )
    assert (result.status_code, result.json()["greeting"]) == (200, "Hello Ada")
    assert result.headers["X-Request-Id"] == request
    for name in (f"{route}-api", "router"):
        support.wait_until(lambda name=name: lines(stack, name, request), what=f"{name}'s log")  # type: ignore[misc]


def assert_job_done(stack: Stack) -> None:
    """A job of the stream is processed, and logged with its request id."""
    request = request_id()
    with stack.redis() as client:
        client.xadd("{extra-worker}:jobs", {"name": "x", "request_id": request})
        support.wait_until(lambda: client.get("{extra-worker}:done"), what="the job")
    support.wait_until(lambda: lines(stack, "extra-worker", request), what="its log")


def assert_scaled(stack: Stack) -> None:
    """A second worker listens at a port of its own, and can be ended."""
    name = "extra-worker"
    variable = name.upper().replace("-", "_")
    [port] = re.findall(rf"{variable}_PORT=(\d+)", (stack.state / "environment").read_text())
    assert stack.compose("process", "scale", name, "2").returncode == 0
    support.wait_until(lambda: is_healthy(int(port) + 10), what="the second worker")
    assert stack.compose("process", "scale", f"{name}-0", "1").returncode == 0
    support.wait_until(lambda: not is_healthy(int(port) + 10), what="its end")


def assert_known_to_doctor(stack: Stack, grown: Tree) -> None:
    """The report has their ports, health and settings, without faults; so has `up -D`."""
    command = [sys.executable, "-m", "devtools.doctor"]
    done = support.call(command, stack.environ, cwd=grown.folder)
    assert "EXTRA_API_GREETING" in done.stdout
    for name in KINDS:
        assert name in done.stdout
        assert f"  {name} " in stack.log("ready")
    assert "fault" not in done.stdout.splitlines()[-1], done.stdout
