"""The `platform` command: up -D, status, down, reset, and their messages."""

import json
import os
import re
import shlex
import shutil
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import psutil
import pytest

from devtools.address import is_free, recorded_port
from devtools.catalog import CONSOLE, SERVICES
from devtools.health import is_healthy
from devtools.processes import is_gone
from tests import support
from tests.stack.stack import (
    Stack,
    cut_off_a_transaction,
    environment,
    left_of,
    merchant,
    platform,
    running,
)

PAY = ("pay", "1250", "USD", "--as", "alice")


def test_up_waits_for_health_and_reset_for_confirmation(environ: dict[str, str]) -> None:
    """`up -D` prints addresses and seconds, a second one is refused; `reset` deletes all state.

    Without a terminal it needs `--yes`.
    """
    port, state = int(environ["PLATFORM_PORT"]), Path(environ["PLATFORM_STATE"])
    done = platform(environ | {"CONSOLE": "on"}, "up", "-D")
    assert done.returncode == 0, done.stdout + done.stderr
    head = rf"The platform is healthy, \d+\.\d s after its start: http://127\.0\.0\.1:{port}\n"
    assert re.search(head, done.stdout)
    for name, service in SERVICES.items():
        line = rf"^  {name} +\d+\.\d\d s   {re.escape(service.url(port))}$"
        assert re.search(line, done.stdout, re.MULTILINE)
    assert f"Console: http://127.0.0.1:{CONSOLE.port(port)}\n" in done.stdout
    support.wait_until(lambda: is_healthy(CONSOLE.port(port)), what="the console")
    again = platform(environ, "up", "-D")
    assert (again.returncode, "already running" in again.stderr) == (1, True)
    refused = platform(environ, "reset")
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    assert merchant(environ, *PAY).returncode == 0
    (state / "nixw").mkdir()
    done = platform(environ, "reset", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert left_of(state) == []
    assert recorded_port(state) is None
    assert (state / "nixw").is_dir()
    assert not (state / "jwt-secret").exists()
    assert not (state / "redis").exists()


@pytest.mark.parametrize("socket_is", ["missing", "left behind"])
@pytest.mark.parametrize(
    ("args", "code"), [(["down"], 0), (["status"], 1), (["process", "restart", "core-api"], 1)]
)
def test_without_a_stack_there_is_a_message(
    tmp_path: Path, socket_is: str, args: list[str], code: int
) -> None:
    """A message replaces the socket's error, also of a killed supervisor's socket."""
    environ = environment(tmp_path / "state", 20_000, PC_SOCKET_PATH=str(tmp_path / "s"))
    if socket_is == "left behind":
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(environ["PC_SOCKET_PATH"])
    idle = platform(environ, *args)
    assert idle.returncode == code
    assert "no stack of this checkout is running" in idle.stdout + idle.stderr


@pytest.mark.parametrize("args", ["status --json", "down now", "logs", "restart core-api"])
def test_a_command_or_an_argument_that_does_not_exist_is_refused(stack: Stack, args: str) -> None:
    """The message leads to the list of commands, and the stack goes on."""
    done = stack.platform(*args.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("see `platform --help`\n")
    assert stack.platform("down", "--help").stdout.startswith("usage: platform ")
    assert stack.healthy("router")


@pytest.mark.parametrize("name", ["core-api", "redis", "preflight", "rates-api"])
def test_only_processes_with_a_port_for_each_replica_are_scaled(stack: Stack, name: str) -> None:
    """A replica of another would crash for ever, and one of preflight would end the stack."""
    done = stack.compose("process", "scale", name, "2")
    reason = "only psp-connector can be scaled: replicas of others would share a port\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", reason)
    assert [one.name for one in stack.states() if one.replica] == []


def test_down_of_a_stack_that_ends_by_itself(tmp_path: Path) -> None:
    """`down` succeeds if process-compose ends during the call, as when its terminal is closed."""
    support.script(tmp_path / "process-compose", 'rm "$PC_SOCKET_PATH"\nexit 1')
    state = tmp_path / "state"
    (state / "process-compose").mkdir(parents=True)
    environ = environment(state, 20_000, PATH=f"{tmp_path}:{os.environ['PATH']}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(environ["PC_SOCKET_PATH"])
        listener.listen()
        done = platform(environ, "down")
    assert (done.returncode, done.stdout) == (0, "platform: the stack has ended\n")


def test_status_shows_each_process(stack: Stack) -> None:
    """Each process has a line with port and health."""
    listed = stack.platform("status").stdout.splitlines()
    lines = {line.split()[0]: line.split()[1:] for line in listed}
    assert lines["core-api"] == ["Running", str(SERVICES["core-api"].port(stack.port)), "pass"]
    assert set(lines) == {state.name for state in stack.states()}


def test_a_suspended_supervisor_is_named(stack: Stack) -> None:
    """After Ctrl-Z in its terminal no command waits for it; the message has the remedy."""
    stack.supervisor.send_signal(SIGSTOP)
    try:
        with ThreadPoolExecutor() as pool:
            commands = [
                pool.submit(stack.platform, "status"),
                pool.submit(stack.platform, "down"),
                pool.submit(stack.platform, "run", "smoke"),
                pool.submit(stack.compose, "process", "list"),
                pool.submit(stack.doctor),
            ]
        for done in (command.result() for command in commands):
            assert done.returncode == 1
            assert f"`kill -CONT {stack.supervisor.pid}`" in done.stderr + done.stdout
    finally:
        stack.supervisor.send_signal(SIGCONT)
    assert stack.platform("status").returncode == 0


@pytest.mark.parametrize("args", [["smok"], ["--", "smoke"], [], ["core-api"]])
def test_run_takes_the_name_of_a_process_that_is_not_running(stack: Stack, args: list[str]) -> None:
    """process-compose would hang, or start a running one again and again; the message helps."""
    done = stack.platform("run", *args)
    assert done.returncode == 2
    reason = "platform process restart" if args == ["core-api"] else " smoke\n"
    assert reason in done.stderr


def test_a_part_of_the_stack_is_started(environ: dict[str, str]) -> None:
    """`up -D redis` waits for that one only, and starts it even if its output is not read."""
    done = platform(environ, "up", "-D", "redis")
    assert (done.returncode, done.stdout) == (0, "platform: ready: redis\n"), done.stderr
    assert platform(environ, "down").returncode == 0
    command = shlex.join([*support.LAUNCH, "devtools.stack", "up", "-D", "redis"])
    support.call(["bash", "-c", f"{command} | true"], environ)
    assert platform(environ, "status").returncode == 0
    assert platform(environ, "down").returncode == 0
    cut_off_a_transaction(Path(environ["PLATFORM_STATE"]) / "redis")
    done = platform(environ | {"MERCHANT_PASSWORD": "wrong"}, "up", "-D", "smoke")
    assert done.returncode == 1, "smoke is a job, which has to succeed"
    assert "smoke ended with code 1; the end of its log" in done.stderr
    assert platform(environ, "down").returncode == 0


def test_orphans_of_a_killed_supervisor_are_ended(environ: dict[str, str], tmp_path: Path) -> None:
    """The next `up` and `down` end and name each orphan, and no other process."""
    state = Path(environ["PLATFORM_STATE"])
    started = platform(environ | {"CONSOLE": "on"}, "up", "-D", "--no-console")
    assert (started.returncode, "Console: " in started.stdout) == (0, False)
    assert is_free(CONSOLE.port(int(environ["PLATFORM_PORT"])))
    with support.program(["sleep", "600"], environ=environ, output=tmp_path / "log") as shell:
        left = kill_supervisor(state)
        paid = merchant(environ, *PAY)
        assert paid.returncode == 0, "they keep working"
        assert platform(environ, "up", "-D").returncode == 0
        assert_named(left, (state / "logs/preflight.log").read_text())
        [transaction_id] = re.findall(r"transaction (\S+)", paid.stdout)
        assert "\ncaptured " in merchant(environ, "trace", transaction_id, *PAY[-2:]).stdout
        left = kill_supervisor(state)
        done = platform(environ, "down")
        assert (done.returncode, done.stderr) == (0, "")
        assert_named(left, done.stdout)
        assert shell.poll() is None, "a process in a developer's shell"


@pytest.mark.parametrize("args", [["down"], ["reset", "--yes"]], ids=" ".join)
def test_a_stack_whose_socket_was_deleted_is_stopped(args: list[str]) -> None:
    """`rm -rf .state` and a cleaned /tmp delete it; the doctor reports that alone.

    Even if it was suspended before.
    """
    with running() as stack:
        if args == ["down"]:
            shutil.rmtree(stack.state)
            for folder in (stack.state, stack.state / "logs"):  # as for the next log line
                folder.mkdir(mode=0o700, exist_ok=True)
        else:
            Path(stack.environ["PC_SOCKET_PATH"]).unlink()
            stack.supervisor.send_signal(SIGSTOP)
        found = json.loads(stack.doctor("--json").stdout)["findings"]
        [fault] = [one for one in found if one["status"] == "fault"]
        assert "platform down" in fault["remedy"]
        done = stack.platform(*args)
        named = f"process-compose, pid {stack.supervisor.pid}, whose socket was gone"
        assert (done.returncode, named in done.stdout) == (0, True), done.stdout + done.stderr
        assert left_of(stack.state) == []
        assert not (stack.state / "redis").exists()


def kill_supervisor(state: Path) -> dict[str, psutil.Process]:
    """`kill -9` of process-compose; returns the processes of services, by name."""
    found = {process.environ().get("PC_PROC_NAME", ""): process for process in left_of(state)}
    boss = found["router"].parent()
    assert boss
    left = {name: psutil.Process(found[name].pid) for name in SERVICES}
    boss.kill()
    support.wait_until(lambda: is_gone(boss), what="the supervisor's end")
    return left


def assert_named(left: Mapping[str, psutil.Process], text: str) -> None:
    """Asserts that the text names each process, and that all are gone."""
    assert [name for name in left if f"{name}, pid " not in text] == []
    assert [name for name, process in left.items() if not is_gone(process)] == []


def test_start_faults_are_printed(environ: dict[str, str]) -> None:
    """All faults of preflight appear at the terminal; nothing else is started."""
    port = SERVICES["psp-connector"].port(int(environ["PLATFORM_PORT"]))
    wrong = environ | {"QUEUE_LIMIT": "many"}
    with socket.create_server(("127.0.0.1", port)):
        done = platform(wrong, "up", "-D")
        assert platform(wrong, "up").returncode == 78
    assert done.returncode == 1
    first, *faults = done.stderr.splitlines()
    assert first == "platform: the stack cannot start"
    assert [line.split(" is held by")[0].split(": must")[0] for line in faults] == [
        f"  port {port} (psp-connector)",
        "  QUEUE_LIMIT='many'",
    ]
    assert not Path(environ["PLATFORM_STATE"], "logs/redis.log").exists()


def test_up_names_the_process_that_ends_at_once(environ: dict[str, str], tmp_path: Path) -> None:
    """After a process has ended three times, `up` fails and shows the end of its log."""
    support.script(tmp_path / "caddy", "echo out of order >&2\nexit 3")
    done = platform(environ | {"PATH": f"{tmp_path}:{environ['PATH']}"}, "up", "-D")
    assert done.returncode == 1
    assert "platform: router has ended 3 times; the end of its log:\n    out of" in done.stderr
    assert "`platform down` stops it" in done.stderr


def test_the_reason_of_an_earlier_start_is_not_shown_again(environ: dict[str, str]) -> None:
    """If process-compose ends before preflight runs, its own error is the reason."""
    bad = {"PLATFORM_PORT": "x"}
    assert "PLATFORM_PORT='x'" in platform(environ | bad, "up", "-D").stderr
    done = platform(environ | {"LOG_FORMAT": '"'}, "up", "-D")
    assert done.returncode == 1
    assert "PLATFORM_PORT" not in done.stderr
    assert "Failed to parse" in done.stderr


def test_a_folder_that_cannot_be_written_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    """It is named with the remedy before anything starts."""
    (tmp_path / "file").touch()  # below it not even root can make a folder
    done = platform(environ | {"PLATFORM_STATE": str(tmp_path / "file/state")}, "up", "-D")
    assert done.returncode == 1
    assert "cannot be written: give write permission, or set PLATFORM_STATE" in done.stderr
