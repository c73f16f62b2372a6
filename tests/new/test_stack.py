"""The stack with a service of each kind, which behave like the others."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import support
from tests.new.tree import KINDS, Tree
from tests.stack.stack import START_SECONDS_MAX, Stack, request_id, running

ROUTES = ["extra", "extra-redis"]
"""Those of KINDS; the service's name ends in -api."""


@pytest.fixture(scope="module")
def stack(grown: Tree) -> Iterator[Stack]:
    """The copy's stack, healthy."""
    with running(
        port=support.free_ports(20),
        PLATFORM_CODE=str(grown.folder),
        PC_CONFIG_FILES=str(grown.folder / "process-compose.yaml"),
        PYTHONPATH=str(grown.folder),
        LOG_FORMAT="json",
    ) as stack:
        support.wait_until(
            lambda: "The platform is healthy" in stack.log("ready"),
            seconds_max=START_SECONDS_MAX,
            what="all services",
        )
        yield stack


def own_url(grown: Tree, stack: Stack, name: str) -> str:
    """The service without the router, at the port that `new` chose."""
    path = grown.folder / "services" / name.replace("-", "_") / "service.toml"
    offset = tomllib.loads(path.read_text())["port_offset"]
    return f"http://127.0.0.1:{stack.port + offset}"


def lines(stack: Stack, name: str, request: str) -> list[dict[str, Any]]:
    """The log lines of a process about a request."""
    found = [json.loads(line) for line in stack.log(name).splitlines() if line.startswith("{")]
    return [line for line in found if line.get("request_id") == request]


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_leads_to_its_service(stack: Stack, route: str) -> None:
    """The example route responds; the request id is in the response and in both logs, as JSON."""
    request = request_id()
    result = stack.http.post(
        f"/{route}/greeting", json={"name": "Ada"}, headers={"X-Request-Id": request}
    )
    assert (result.status_code, result.json()["greeting"]) == (200, "Hello Ada")
    assert result.headers["X-Request-Id"] == request
    for name in (f"{route}-api", "router"):
        support.wait_until(lambda name=name: lines(stack, name, request), what=f"{name}'s log")  # type: ignore[misc]


@pytest.mark.parametrize("route", ROUTES)
def test_a_service_has_what_all_have(grown: Tree, stack: Stack, route: str) -> None:
    """It has health, OpenAPI and problem documents, and metrics on its own port only."""
    assert stack.http.get(f"/{route}/health").json()["status"] == "pass"
    document = stack.http.get(f"/{route}/openapi.json").json()
    assert set(document["paths"]) == {"/greeting", "/health"}
    refused = stack.http.post(f"/{route}/greeting", json={"nam": "Ada"})
    assert refused.status_code == 422
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert stack.http.get(f"/{route}/metrics").status_code == 404
    metrics = httpx.get(f"{own_url(grown, stack, f'{route}-api')}/metrics").text
    assert 'http_request_duration_seconds_count{method="POST"' in metrics


def test_a_worker_does_its_jobs(grown: Tree, stack: Stack) -> None:
    """A job of the stream is processed and logged with its request id; health is served."""
    request = request_id()
    with stack.redis() as client:
        client.xadd("{extra-worker}:jobs", {"name": "x", "request_id": request})
        support.wait_until(lambda: client.get("{extra-worker}:done"), what="the job")
    support.wait_until(lambda: lines(stack, "extra-worker", request), what="its log")
    url = own_url(grown, stack, "extra-worker")
    checks = httpx.get(f"{url}/health").json()["checks"]
    assert checks == {"redis": "pass", "loop": "pass"}
    assert httpx.get(f"{url}/metrics").status_code == 200


def test_doctor_knows_them(grown: Tree, stack: Stack) -> None:
    """The report has their ports, health and settings, without faults; so has `up -D`."""
    command = [sys.executable, "-m", "devtools.doctor"]
    done = support.call(command, stack.environ, cwd=grown.folder)
    assert "EXTRA_API_GREETING" in done.stdout
    for name in KINDS:
        assert name in done.stdout
        assert f"  {name} " in stack.log("ready")
    assert "fault" not in done.stdout.splitlines()[-1], done.stdout
