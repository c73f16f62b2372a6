"""Starting, stopping, crashing: what the supervisor and the processes do together."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from devtools import orphans, ports
from devtools.address import BLOCK, PORT_OFFSETS, derived_port
from tests import support
from tests.stack.stack import (
    compose,
    environment,
    left_of,
    merchant,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.stack.stack import Stack


def test_smoke_passes(stack: Stack) -> None:
    """`platform run smoke` pays through the router of the running stack; exit code as smoke's."""
    done = stack.platform("run", "smoke", seconds_max=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    assert stack.healthy("router")
    assert stack.compose("process", "list").returncode == 0, "the socket is still there"
    assert stack.platform("run", "smoke", "--", "--url", "http://127.0.0.1:1").returncode != 0


@pytest.mark.parametrize("args", [["smok"], ["--", "smoke"], []])
def test_run_without_the_name_of_a_process_is_refused(stack: Stack, args: list[str]) -> None:
    """Beside a running stack process-compose would hang; the names that exist are given."""
    done = stack.platform("run", *args)
    assert done.returncode == 2
    assert " redis reload router smoke\n" in done.stderr


def test_smoke_passes_with_a_stack_of_its_own() -> None:
    """`process-compose run smoke` starts what it needs, and ends it again."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        environ = environment(Path(folder), support.free_ports(BLOCK))
        done = compose(environ, "run", "smoke", seconds_max=90)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0 failed" in done.stdout
        assert left_of(Path(folder)) == []


def test_a_second_up_is_refused(stack: Stack) -> None:
    """`up` in a checkout whose stack runs says so, and the stack goes on."""
    done = stack.compose("up", "-t=false", seconds_max=60)
    assert done.returncode != 0
    told = done.stdout + done.stderr + (stack.state / "process-compose.log").read_text()
    assert "already" in told
    assert stack.http.get("/transactions/health").status_code == 200


def test_a_busy_port_stops_the_start_and_is_named() -> None:
    """Preflight names the port, its holder and a way out; nothing else was started."""
    port = support.free_ports(BLOCK)
    with (
        socket.create_server(("127.0.0.1", port + 3)),
        running(healthy=False, port=port, QUEUE_LIMIT="many") as stack,
    ):
        assert stack.supervisor.wait(60) == 78
        output = stack.log("preflight")
        assert not (stack.state / "logs" / "redis.log").exists()
    assert f"port {port + 3} (psp-connector) is held by" in output
    assert "start with PLATFORM_PORT=" in output
    assert "QUEUE_LIMIT='many'" in output


def test_two_checkouts_run_side_by_side() -> None:
    """`auto` for both: each has its ports, pays, and stops without the other noticing."""
    with own_block() as one, running(state=one, port=derived_port(one), PLATFORM_PORT="auto") as a:
        with own_block() as two:
            b_port = derived_port(two)
            with running(state=two, port=b_port, PLATFORM_PORT="auto") as b:
                assert a.port != b.port
                for stack in (a, b):
                    assert stack.ended(stack.pay().json()["id"])["status"] == "captured"
                    assert f"the router listens on port {stack.port}" in stack.log("preflight")
                assert (a.points(), b.points()) == (12, 12)
        assert left_of(two) == []
        assert a.ended(a.pay().json()["id"])["status"] == "captured"
        assert a.points() == 24


@contextlib.contextmanager
def own_block() -> Iterator[Path]:
    """A state folder whose ports are free."""
    for _try in range(50):
        with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
            port = derived_port(Path(folder))
            if all(ports.is_free(port + offset) for offset in range(BLOCK)):
                yield Path(folder)
                return
    raise RuntimeError("no folder with a free block of ports found in 50 tries")


def test_auto_is_never_shifted() -> None:
    """With `auto`, a taken port stops the start; the error names its holder and a remedy."""
    with own_block() as state:
        port = derived_port(state)
        with (
            socket.create_server(("127.0.0.1", port + 5)),
            running(healthy=False, state=state, port=port, PLATFORM_PORT="auto") as stack,
        ):
            assert stack.supervisor.wait(60) == 78
            output = stack.log("preflight")
            assert not (state / "environment").exists()
    assert f"port {port + 5} (redis) is held by" in output
    assert "end that, or start with PLATFORM_PORT=" in output


def test_dot_env_moves_the_stack_and_clients_know() -> None:
    """`PLATFORM_PORT` of `.env` moves all of it; a client finds it without being told."""
    with own_block() as state:
        (state / ".env").write_text("PLATFORM_PORT=auto\n")
        port = derived_port(state)
        with running(state=state, port=port, cwd=state, PLATFORM_PORT="") as stack:
            shell = {k: v for k, v in stack.environ.items() if k != "PLATFORM_PORT"}
            paid = merchant(shell, "pay", "1250", "USD", "--as", "alice")
            assert (paid.returncode, paid.stderr) == (0, "")
            assert stack.points() == 12
            output = stack.log("ready")
    assert f"http://127.0.0.1:{port}\n" in output


def test_what_a_killed_supervisor_left_is_ended_by_the_next_up(stack: Stack) -> None:
    """`kill -9` of process-compose: the next start names and ends its processes, only those."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        state = Path(folder)
        with running(state=state) as killed, bystander(killed.environ) as shell:
            accepted = killed.pay().json()["id"]
            left = {name: killed.process(name) for name in PORT_OFFSETS}
            workers = [w for process in left.values() for w in process.children(recursive=True)]
            killed.supervisor.kill()
            killed.supervisor.wait()
            assert killed.ended(killed.pay().json()["id"])["status"] == "captured", "they work on"
            with running(healthy=False, state=state, port=killed.port) as again:
                # Until they are ended, health checks are answered by those that were left.
                output = support.wait_until(lambda: told(again), seconds_max=60, what="the end")
                for name, process in left.items():
                    assert f"{name}, pid {process.pid}" in output
                assert [p for p in [*left.values(), *workers] if not orphans.is_gone(p)] == []
                assert shell.poll() is None
                shell.kill()
                again.wait_healthy()
                assert again.ended(accepted)["status"] == "captured"
            assert stack.ended(stack.pay().json()["id"])["status"] == "captured"


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


def test_a_dry_run_refuses_a_broken_file(tmp_path: Path) -> None:
    """`--dry-run` names an unknown key. That it takes the stack's own file, lint checks."""
    text = (support.ROOT / "process-compose.yaml").read_text()
    (tmp_path / "stack.yaml").write_text(text.replace("depends_on", "depend_on"))
    environ = environment(tmp_path, 20_000, PC_CONFIG_FILES=str(tmp_path / "stack.yaml"))
    done = compose(environ, "--dry-run")
    assert (done.returncode, "depend_on" in done.stderr) == (1, True)


def test_a_log_is_rotated_and_outlives_a_restart(tmp_path: Path) -> None:
    """With the stack's own settings but for the size, which is 1 MB here: no line is lost."""
    config = yaml.safe_load((support.ROOT / "process-compose.yaml").read_text())
    logging = config["processes"]["auth-api"]["log_configuration"]
    logging["rotation"]["max_size_mb"] = 1
    log = tmp_path / "auth-api.log"
    process = {"log_location": str(log), "log_configuration": logging}
    process["command"] = "yes $(printf %01000d 0) | head -n 1500"
    (tmp_path / "stack.yaml").write_text(json.dumps({"processes": {"auth-api": process}}))
    environ = environment(tmp_path, 20_000, PC_CONFIG_FILES=str(tmp_path / "stack.yaml"))
    for _start in range(2):
        assert compose(environ, "up").returncode == 0
    parts = list(tmp_path.glob("auth-api*.log"))
    assert len(parts) == 3
    assert sum(part.read_text().count("\n") for part in parts) == 3000
