"""The real stack, started by process-compose on free ports with its own state folder."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from devtools.address import BLOCK
from devtools.catalog import SERVICES
from devtools.health import is_healthy
from devtools.processes import is_gone
from devtools.supervisor import ProcessState, Supervisor, SupervisorError
from services.common.transaction import FINAL
from tests import support

START_SECONDS_MAX = 60  # 3 s is the aim; the machine of a check is shared and slow at times
STOP_SECONDS_MAX = 20
LEFT_SECONDS_MAX = 1


@dataclass
class Stack:
    """A running stack; `http` talks to its router."""

    environ: Mapping[str, str]
    state: Path
    port: int
    supervisor: subprocess.Popen[bytes]
    password: str = "password"

    @cached_property
    def http(self) -> httpx.Client:
        url = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, timeout=30, verify=False)  # noqa: S501  loopback only

    def token(self, username: str = "alice") -> str:
        body = {"username": username, "password": self.password}
        response = self.http.post("/auth/token", json=body)
        assert response.status_code == 200, response.text
        return str(response.json()["token"])

    def bearer(self, username: str = "alice") -> dict[str, str]:
        """The Authorization header."""
        return {"Authorization": f"Bearer {self.token(username)}"}

    def pay(self, username: str = "alice", **fields: Any) -> httpx.Response:
        body = {"amount": 1250, "currency": "USD"} | fields
        return self.http.post("/transactions", json=body, headers=self.bearer(username))

    def ended(self, transaction_id: str, username: str = "alice") -> dict[str, Any]:
        """The transaction once it is final."""
        headers = self.bearer(username)

        def final() -> dict[str, Any] | None:
            response = self.http.get(f"/transactions/{transaction_id}", headers=headers)
            record: dict[str, Any] = response.json()
            return record if record.get("status") in FINAL else None

        return support.wait_until(final, what=f"the end of {transaction_id}")

    def paid(self, **fields: Any) -> dict[str, Any]:
        """A new transaction once it is final."""
        return self.ended(self.pay(**fields).json()["id"])

    def points(self) -> int:
        response = self.http.get("/transactions/loyalty", headers=self.bearer())
        return int(response.json()["points"])

    def redis(self) -> Any:
        url = (self.state / "redis-url").read_text().strip()
        return redis.Redis.from_url(url, decode_responses=True, socket_timeout=10)

    def sandbox(self, method: str, path: str, **more: Any) -> Any:
        """Queries the sandbox's control interface with its token."""
        url = f"{SERVICES['psp-sandbox'].url(self.port)}/_sandbox/{path}"
        token = (self.state / "sandbox-token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        response = support.http.request(method, url, headers=headers, **more)
        response.raise_for_status()
        return response.json() if response.content else None

    def compose(self, *args: str) -> subprocess.CompletedProcess[str]:
        return compose(self.environ, *args)

    def platform(self, *args: str) -> subprocess.CompletedProcess[str]:
        return platform(self.environ, *args)

    def doctor(self, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs `doctor` as in a shell of this stack."""
        command = [sys.executable, "-m", "devtools.doctor", *args]
        return support.call(command, {**self.environ, **more})

    def states(self) -> list[ProcessState]:
        """All processes, as reported by the supervisor."""
        return Supervisor(self.environ["PC_SOCKET_PATH"]).processes()

    def process(self, name: str) -> psutil.Process:
        """A process, as reported by the supervisor; LookupError if it has none of that name."""
        for state in self.states():
            if state.name == name and state.is_running:
                with contextlib.suppress(psutil.NoSuchProcess):
                    return psutil.Process(state.pid)
        raise LookupError(name)

    def has_begun(self, name: str) -> bool:
        """Whether a process has been started."""
        with contextlib.suppress(SupervisorError):
            return any(state.name == name and state.pid for state in self.states())
        return False

    def restarted(self, name: str, before: psutil.Process) -> bool:
        """Whether another process has replaced `before`."""
        try:
            return self.process(name).pid != before.pid
        except LookupError:
            return False

    def wait_healthy(self) -> None:
        """Waits until every service's health check passes."""
        for name in SERVICES:
            support.wait_until(partial(self.healthy, name), what=name)

    def healthy(self, name: str) -> bool:
        """Whether the process is healthy now."""
        if name == "redis":
            url = self.state / "redis-url"  # written by preflight
            return url.exists() and support.redis_answers(url.read_text().strip())
        return is_healthy(SERVICES[name].port(self.port))

    def log(self, name: str, replica: str = "") -> str:
        """The process's log so far; process-compose creates the file with the first line."""
        path = self.state / "logs" / f"{name}.log{replica}"
        return path.read_text() if path.exists() else ""

    def wait_for_log(self, name: str, text: str) -> None:
        """Waits until the process has logged that."""
        seconds_max = START_SECONDS_MAX
        support.wait_until(lambda: text in self.log(name), seconds_max=seconds_max, what=text)

    def restart_reload(self) -> None:
        """Waits until the new one has restarted what was saved before it, too."""
        logged = len(self.log("reload"))
        before = {name: self.process(name) for name in ("auth-api", "core-api", "psp-sandbox")}
        assert self.compose("process", "restart", "reload").returncode == 0

        def restarting() -> list[str]:
            return re.findall(r" restarting .*process=(\S+)", self.log("reload")[logged:])

        support.wait_until(restarting, what="restarts of the new reload")
        time.sleep(0.2)  # they begin at the same time
        for name in before.keys() & restarting():
            restarted = partial(self.restarted, name, before[name])
            support.wait_until(restarted, what=f"another {name}")

    def output(self) -> str:
        return (self.state / "output").read_text()


def cut_off_a_transaction(folder: Path) -> None:
    """Leaves the beginning of one in a Redis's append-only file, as a power cut does."""
    [file] = folder.glob("appendonlydir/*.incr.aof")
    with file.open("ab") as end:
        end.write(b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$6\r\nbroken\r\n*3\r\n$3\r\nSE")


def environment(state: Path, port: int, **more: str) -> dict[str, str]:
    """The environment of the flake's shell, with its own state folder and ports.

    An empty value in `more` removes a variable.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PLATFORM_", "PC_", "JWT_", "PSP_", "REDIS_"))
    }
    values = kept | {
        "PLATFORM_PORT": str(port),
        "PLATFORM_STATE": str(state),
        "PLATFORM_CODE": str(support.ROOT),
        "PC_SOCKET_PATH": str(state / "pc.sock"),
        "PC_CONFIG_FILES": str(support.ROOT / "process-compose.yaml"),
        "PC_LOG_FILE": str(state / "process-compose.log"),
        "PROC_COMP_CONFIG": str(state),
        "PC_DISABLE_TUI": "1",
        "RELOAD": "0",
        "CONSOLE": "off",  # but for the tests of it: many stacks run at a time
        "PSP_BACKOFF_SECONDS": "0.05",
        "PSP_BACKOFF_SECONDS_MAX": "0.5",
        **more,
    }
    return {name: value for name, value in values.items() if more.get(name) != ""}


@contextlib.contextmanager
def running(
    *,
    healthy: bool = True,
    port: int | None = None,
    state: Path | None = None,
    cwd: Path = support.ROOT,
    **more: str,
) -> Iterator[Stack]:
    """A healthy stack, whose processes are all gone afterwards.

    It continues with the data of an earlier one in the same `state` folder; the default is a new
    folder. PLATFORM_PORT is `port` unless `more` sets it.
    """
    # Short: the path of a Unix socket has room for about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        state = state or Path(folder)
        port = port or support.free_ports(BLOCK)
        environ = environment(state, port, **more)
        with support.program(
            ["process-compose", "up"],
            environ=environ,
            output=state / "output",
            cwd=cwd,
            stop_seconds_max=STOP_SECONDS_MAX,
        ) as supervisor:
            stack = Stack(environ, state, port, supervisor)
            try:
                if healthy:
                    stack.wait_healthy()
                yield stack
            finally:
                stack.http.close()
        assert killed(state) == [], "processes were left behind"


def left_of(state: Path) -> list[psutil.Process]:
    """Processes with this state folder that still run after LEFT_SECONDS_MAX.

    A process that got SIGKILL can show for a moment, in a small PID namespace above all.
    """
    deadline = time.monotonic() + LEFT_SECONDS_MAX
    while (left := processes_of(state)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def killed(state: Path) -> list[psutil.Process]:
    """Kills and returns those of `left_of`, so that a failed test leaves nothing."""
    left = left_of(state)
    for process in left:
        process.kill()
    return left


def processes_of(state: Path) -> list[psutil.Process]:
    """Running processes with this state folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PLATFORM_STATE") == str(state) and not is_gone(process):
                found.append(process)
    return [process for process in found if process.pid != os.getpid()]


def compose(environ: Mapping[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return support.call(["process-compose", *args], environ)


def platform(environ: Mapping[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    """Runs `platform` like bin/platform."""
    return support.call([*support.LAUNCH, "devtools.stack", *args], environ)


def merchant(environ: Mapping[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    """Runs `merchant` as in a shell with these variables."""
    return support.call([sys.executable, "-m", "devtools.merchant", *args], environ)


def request_id() -> str:
    """A request id that can be found in the logs."""
    return f"test-{uuid.uuid4()}"
