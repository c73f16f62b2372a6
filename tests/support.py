"""Shared by tests: free ports, bounded waits, programs that always end."""

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

ROOT = Path(__file__).resolve().parent.parent
# How the flake's programs start; a module and its arguments follow.
LAUNCH = (sys.executable, "-I", "-X", "utf8", str(ROOT / "devtools/launch.py"))

# To check once: by default, redis-py retries a refused connection for seconds.
ONE_TRY = Retry(NoBackoff(), 0)

# One connection per request, without TLS: `httpx.get` would load all CA certificates each time,
# which takes 27 ms of CPU time.
http = httpx.Client(
    verify=False,  # noqa: S501  loopback only
    trust_env=False,
    timeout=10,
    limits=httpx.Limits(max_keepalive_connections=0),
)

# Refuses connections: held without listening until this process ends, so that no other program
# listens there.
_closed = socket.socket()
atexit.register(_closed.close)
_closed.bind(("127.0.0.1", 0))
CLOSED_PORT: int = _closed.getsockname()[1]

T = TypeVar("T")


def copied(folder: Path, *more: str) -> Path:
    """A copy of the checkout's code, and of more folders, for editing."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("devtools", "services", *more):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("process-compose.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports of the loopback that are free now.

    Below the range from which the system takes ports for outgoing connections: one of those
    could be taken between this check and the start of the server. Each of pytest's processes has a
    part of its own, for the same reason.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    # One that replaces a crashed process has a number above all others.
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % processes
    part = 22_000 // processes
    begin = 10_000 + part * number
    for _try in range(50):
        # Not the shared generator, which Hypothesis seeds.
        first = random.SystemRandom().randrange(begin, begin + part - count)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise RuntimeError(f"no {count} consecutive free ports found in 50 tries")


def wait_until(
    condition: Callable[[], T | None], *, seconds_max: float = 60, what: str = "condition"
) -> T:
    """The condition's first true value; fails after `seconds_max`, naming `what`."""
    deadline = time.monotonic() + seconds_max
    pause_seconds = 0.001
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(pause_seconds)
        pause_seconds = min(1.5 * pause_seconds, 0.02)
    raise AssertionError(f"still waiting for {what} after {seconds_max} s")


def call(
    command: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    *,
    cwd: Path = ROOT,
    seconds_max: float = 90,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, without a terminal."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds_max,
        check=False,
    )


def script(path: Path, text: str) -> Path:
    """Writes a shell script that can be run."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def program(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    output: Path,
    cwd: Path = ROOT,
    stop_seconds_max: float = 10,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program in its own process group, and ends the whole group afterwards."""
    with output.open("ab") as file:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environ),
            stdin=stdin,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(stop_seconds_max)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextlib.contextmanager
def redis_server(
    folder: Path, port: int, *options: str, url: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """A private Redis with the platform's configuration, ready when this returns.

    Its blocking reads end to the millisecond, and replicas synchronize at once. `url` is needed if
    it takes TLS only.
    """
    url = url or f"redis://127.0.0.1:{port}"
    folder.mkdir(exist_ok=True)
    config = str(ROOT / "services/redis/redis.conf")
    quick = ["--hz", "500", "--repl-diskless-sync-delay", "0"]
    command = ["redis-server", config, "--port", str(port), "--dir", str(folder), *quick, *options]
    log = folder / "log"
    with program(command, environ=os.environ, output=log, stop_seconds_max=0) as process:
        wait_until(lambda: redis_answers(url), what=f"Redis on port {port}")
        yield process


def redis_answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=1, retry=ONE_TRY) as client:
            return bool(client.ping())
    except redis.AuthenticationError:
        return True
    except redis.RedisError:
        return False


@contextlib.contextmanager
def service(name: str, folder: Path, **more: str) -> Iterator[tuple[str, psutil.Process]]:
    """A service that responds, without Redis and PSP by default; yields address and process."""
    environ = {
        **os.environ,
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": str(free_ports(1)),
        "JWT_SECRET": "s" * 32,
        "PLATFORM_STATE": "",
        "PSP_URL": f"http://127.0.0.1:{CLOSED_PORT}",
        "REDIS_URL": f"redis://127.0.0.1:{CLOSED_PORT}/0",
        **more,
    }
    url = f"http://127.0.0.1:{environ['HTTP_PORT']}"
    command = [sys.executable, "-m", f"services.{name}"]
    with program(command, environ=environ, output=folder / "log") as process:
        wait_until(lambda: _is_up(url), what=name)
        yield url, psutil.Process(process.pid)


def _is_up(url: str) -> bool:
    try:
        return http.get(f"{url}/health").status_code in {200, 503}
    except httpx.TransportError:
        return False


def confirms(primary: Any) -> bool:
    """Whether a replica has a new write. One that still loads counts as having no write at all."""
    primary.set("written", "1")
    return bool(primary.wait(1, 100) == 1)
