"""Starting, stopping, crashing: what the supervisor and the processes do together."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.address import BLOCK, PORT_OFFSETS, derived_port
from services.preflight import ports
from tests import support
from tests.stack.stack import (
    STOP_SECONDS_MAX,
    compose,
    environment,
    is_gone,
    left_of,
    merchant,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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


@pytest.mark.parametrize("words", [["smok"], ["--", "smoke"], []])
def test_run_without_the_name_of_a_process_is_refused(stack: Stack, words: list[str]) -> None:
    """Beside a running stack process-compose would hang; the names that exist are given."""
    done = stack.platform("run", *words)
    assert done.returncode == 2
    assert " redis reload router smoke\n" in done.stderr


def test_smoke_passes_with_a_stack_of_its_own() -> None:
    """`process-compose run smoke` starts what it needs, and ends it again."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        environ = environment(Path(folder), support.free_ports(BLOCK))
        done = compose(environ, "run", "smoke", seconds_max=90)
        assert 0 == done.returncode, done.stdout + done.stderr
        assert "0 failed" in done.stdout
        assert [] == left_of(Path(folder))


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_nothing(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end every process, in order, Redis last."""
    with running() as stack:
        pids = {name: stack.process(name) for name in PORT_OFFSETS}
        workers = [w for process in pids.values() for w in process.children(recursive=True)]
        stack.supervisor.send_signal(number)
        stack.supervisor.wait(STOP_SECONDS_MAX)
        assert [] == [p for p in [*pids.values(), *workers] if not is_gone(p)]
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


def test_two_checkouts_run_side_by_side() -> None:
    """`auto` for both: each has its ports, pays, and stops without the other noticing."""
    with own_block() as one, running(state=one, port=derived_port(one), PLATFORM_PORT="auto") as a:
        with own_block() as two:
            b_port = derived_port(two)
            with running(state=two, port=b_port, PLATFORM_PORT="auto") as b:
                assert a.port != b.port
                for stack in (a, b):
                    assert "captured" == stack.ended(stack.pay().json()["id"])["status"]
                    assert f"the router listens on port {stack.port}" in stack.log("preflight")
                assert (12, 12) == (a.points(), b.points())
        assert [] == left_of(two)
        assert "captured" == a.ended(a.pay().json()["id"])["status"]
        assert 24 == a.points()


@contextlib.contextmanager
def own_block() -> Iterator[Path]:
    """A state folder whose ports nobody holds now."""
    for _try in range(50):
        with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
            port = derived_port(Path(folder))
            if all(ports.is_free(port + offset) for offset in range(BLOCK)):
                yield Path(folder)
                return
    raise RuntimeError("no folder with a free block of ports found in 50 tries")


def test_auto_is_never_shifted() -> None:
    """A block that somebody holds stops the start, with the holder and a way out."""
    with own_block() as state:
        port = derived_port(state)
        with (
            socket.create_server(("127.0.0.1", port + 5)),
            running(healthy=False, state=state, port=port, PLATFORM_PORT="auto") as stack,
        ):
            assert 78 == stack.supervisor.wait(60)
            said = stack.log("preflight")
            assert not (state / "port").exists()
    assert f"port {port + 5} (redis) is held by" in said
    assert "end that, or start with PLATFORM_PORT=" in said


def test_dot_env_moves_the_stack_and_clients_know() -> None:
    """`PLATFORM_PORT` of `.env` moves all of it; a client finds it without being told."""
    with own_block() as state:
        (state / ".env").write_text("PLATFORM_PORT=auto\n")
        port = derived_port(state)
        with running(state=state, port=port, cwd=state, PLATFORM_PORT="") as stack:
            shell = {k: v for k, v in stack.environ.items() if k != "PLATFORM_PORT"}
            paid = merchant(shell, "pay", "1250", "USD", "--as", "alice")
            assert (0, "") == (paid.returncode, paid.stderr)
            assert 12 == stack.points()
            said = stack.log("ready")
    assert f"http://127.0.0.1:{port}\n" in said


def test_the_shell_beats_dot_env(tmp_path: Path) -> None:
    """`PLATFORM_PORT=8100 process-compose up` is not silently passed over, nor is any other."""
    (tmp_path / ".env").write_text("PLATFORM_PORT=auto\r\nQUEUE_LIMIT=many\r\n", newline="")
    with running(cwd=tmp_path, QUEUE_LIMIT="100", PLATFORM_CHECKOUT=str(tmp_path)) as stack:
        assert "captured" == stack.ended(stack.pay().json()["id"])["status"]


def test_what_a_killed_supervisor_left_is_ended_by_the_next_up() -> None:
    """`kill -9` of process-compose: the next start names and ends its processes, only those."""
    with running() as other, tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        state = Path(folder)
        with running(state=state) as killed, bystander(killed.environ) as shell:
            accepted = killed.pay().json()["id"]
            left = {name: killed.process(name) for name in PORT_OFFSETS}
            workers = [w for process in left.values() for w in process.children(recursive=True)]
            killed.supervisor.kill()
            killed.supervisor.wait()
            assert killed.healthy("core-api"), "its processes go on without it"
            with running(healthy=False, state=state, port=killed.port) as stack:
                # Until they are ended, health checks are answered by those that were left.
                said = support.wait_until(lambda: told(stack), seconds_max=60, what="the end")
                for name, process in left.items():
                    assert f"{name}, pid {process.pid}" in said
                assert [] == [p for p in [*left.values(), *workers] if not is_gone(p)]
                assert shell.poll() is None
                shell.kill()
                stack.wait_healthy()
                assert "captured" == stack.ended(accepted)["status"]
            assert "captured" == other.ended(other.pay().json()["id"])["status"]


def told(stack: Stack) -> str:
    """What preflight said of those that were left behind, once it has ended them."""
    return stack.log("preflight").partition(
        "ended what was left behind by a supervisor that is gone"
    )[2]


@contextlib.contextmanager
def bystander(environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """What a developer has running in a shell of the same checkout."""
    with subprocess.Popen(["sleep", "600"], env=dict(environ)) as process:
        try:
            yield process
        finally:
            process.kill()


def test_process_compose_takes_the_file() -> None:
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
