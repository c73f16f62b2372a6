"""Starting, stopping, crashing: what the supervisor and the processes do together."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from services.preflight.plan import BLOCK, PORT_OFFSETS
from tests import support
from tests.stack.stack import STOP_SECONDS_MAX, is_the_real_process_compose, left_of, running

if TYPE_CHECKING:
    from tests.stack.stack import Stack

SLOW_CLIENTS = 32


def test_it_says_how_long_each_process_took(stack: Stack) -> None:
    """When all are healthy the last process tells times, addresses and what to type next."""
    support.wait_until(lambda: "The platform is healthy" in stack.log("ready"), what="ready")
    said = stack.log("ready")
    for name in PORT_OFFSETS:
        assert f"  {name} " in said
    assert "? s" not in said
    assert "merchant pay 1250 USD --as alice" in said


def test_smoke_passes(stack: Stack) -> None:
    """`platform run smoke` pays through the router of the stack that runs, and is content."""
    done = stack.platform("run", "smoke", seconds_max=90)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    assert stack.healthy("router")
    assert 0 == stack.compose("process", "list").returncode, "the socket is still there"


def test_slow_clients_hold_nobody_up(stack: Stack) -> None:
    """32 clients that send their bodies slowly: health and payments go on."""
    head = (
        "POST /transactions HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nContent-Length: 2000\r\n\r\n{"
    )
    slow = [socket.create_connection(("127.0.0.1", stack.port)) for _ in range(SLOW_CLIENTS)]
    try:
        for client in slow:
            client.sendall(head.encode())
        time.sleep(0.3)
        with ThreadPoolExecutor(8) as pool:
            healths = [
                pool.submit(stack.http.get, path)
                for path in ("/auth/health", "/transactions/health") * 20
            ]
            assert {200} == {future.result(20).status_code for future in healths}
        paid = stack.ended(stack.pay().json()["id"])
        assert "captured" == paid["status"]
    finally:
        for client in slow:
            client.close()


def test_a_second_up_is_refused(stack: Stack) -> None:
    """`up` in a checkout whose stack runs says so, and the stack goes on."""
    done = stack.compose("up", "-t=false", seconds_max=60)
    assert 0 != done.returncode
    told = done.stdout + done.stderr + (stack.state / "process-compose.log").read_text()
    assert "already" in told
    assert 200 == stack.http.get("/transactions/health").status_code


def test_a_busy_port_stops_the_start_and_is_named() -> None:
    """Preflight names the port, its holder and a way out; nothing else was started."""
    port = support.free_ports(BLOCK)
    with (
        socket.create_server(("127.0.0.1", port + 3)),
        running(healthy=False, port=port, QUEUE_LIMIT="many") as stack,
    ):
        assert 78 == stack.supervisor.wait(60)
        said = stack.log("preflight")
        assert not (stack.state / "logs" / "redis.log").exists()
    assert f"port {port + 3} (psp-connector) is held by" in said
    assert "start with PLATFORM_PORT=" in said
    assert "QUEUE_LIMIT='many'" in said


def runs(process: psutil.Process) -> bool:
    """Not when it is dead and only waits for init, or whoever stands in for it, to say so."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_nothing(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end every process, in order, Redis last."""
    with running() as stack:
        pids = {name: stack.process(name) for name in PORT_OFFSETS}
        workers = [w for process in pids.values() for w in process.children(recursive=True)]
        stack.supervisor.send_signal(number)
        stack.supervisor.wait(STOP_SECONDS_MAX)
        assert [] == [p for p in [*pids.values(), *workers] if runs(p)]
        assert "bye bye" in stack.log("redis")
        assert '"left_to_others": 0' in stack.log("psp-connector")


def test_down_from_elsewhere_leaves_nothing() -> None:
    """`process-compose down` in another shell ends all, within its bound."""
    with running() as stack:
        done = stack.compose("down")
        assert 0 == done.returncode, done.stderr
        stack.supervisor.wait(STOP_SECONDS_MAX)
        support.wait_until(lambda: not left_of(stack.state), what="the last process to end")


def test_a_killed_process_comes_back() -> None:
    """`kill -9` of any service or of Redis: it is started again, and its log goes on."""
    with running() as stack:
        first = stack.pay().json()["id"]
        stack.ended(first)
        for name in PORT_OFFSETS:
            before = stack.process(name)
            length = len(stack.log(name))
            before.kill()
            support.wait_until(partial(stack.restarted, name, before), what=f"another {name}")
            stack.wait_healthy()
            assert len(stack.log(name)) > length, "the log survives a restart"
        assert "captured" == stack.ended(first)["status"]
        assert "captured" == stack.ended(stack.pay().json()["id"])["status"]


def test_without_redis_there_is_a_quick_503() -> None:
    """Redis away: 503 with Retry-After; back again, all is well, and nothing is lost."""
    with running() as stack:
        token = stack.bearer()
        accepted = stack.pay().json()["id"]
        assert 0 == stack.compose("process", "stop", "redis").returncode
        support.wait_until(lambda: not stack.healthy("redis"), what="Redis to stop")
        body = {"amount": 1, "currency": "USD"}
        answer = stack.http.post("/transactions", json=body, headers=token)
        assert (503, "1") == (answer.status_code, answer.headers["retry-after"])
        assert "service-unavailable" == answer.json()["code"]
        health = stack.http.get("/transactions/health")
        assert (503, {"redis": "fail"}) == (health.status_code, health.json()["checks"])
        assert 0 == stack.compose("process", "start", "redis").returncode
        stack.wait_healthy()
        assert "captured" == stack.ended(accepted)["status"]


def test_a_full_queue_is_a_quick_503() -> None:
    """QUEUE_LIMIT open transactions: the next is refused with Retry-After."""
    with running(QUEUE_LIMIT="1", PSP_TIMEOUT_SECONDS="20") as stack:
        first = stack.pay(payment_method="pm_sandbox_slow")
        second = stack.pay()
        assert (202, 503) == (first.status_code, second.status_code)
        assert "retry-after" in second.headers
        assert "captured" == stack.ended(first.json()["id"])["status"]
        assert "captured" == stack.ended(stack.pay().json()["id"])["status"]


def test_a_service_that_is_down_is_a_problem_document() -> None:
    """With the Auth API stopped the router says so itself, and the rest goes on."""
    with running() as stack:
        assert 0 == stack.compose("process", "stop", "auth-api").returncode
        support.wait_until(lambda: not stack.healthy("auth-api"), what="auth-api to stop")
        answer = stack.http.get("/auth/health")
        assert answer.status_code in {502, 503}
        assert "application/problem+json" == answer.headers["content-type"]
        assert answer.json()["code"] in {"bad-gateway", "service-unavailable"}
        assert 200 == stack.http.get("/transactions/health").status_code


@pytest.mark.skipif(
    not is_the_real_process_compose(), reason="the host set's stand-in has no dry run of the real"
)
def test_the_real_process_compose_takes_the_file() -> None:
    """`--dry-run` in strict mode finds nothing to complain about."""
    done = subprocess.run(
        ["process-compose", "--dry-run", "-f", str(support.ROOT / "process-compose.yaml")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
