"""The user's environment does not affect the stack, and other users cannot access it."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from devtools.catalog import SERVICES
from tests import support
from tests.stack.stack import STOP_SECONDS_MAX, Stack, processes_of, running

# Names that bash reads before they can be dropped, names that are inherited or that the stack sets,
# and one of each kind that once kept a stack from starting, charging or stopping.
HOSTILE_LINES = """
BASH_FUNC_exec%%=() { return 3; }
BASH_FUNC_python%%=() { return 3; }
SHELLOPTS=errexit:nounset
CDPATH=/:/usr
http_proxy=http://127.0.0.1:9
https_proxy=http://127.0.0.1:9
HTTP_PROXY=http://127.0.0.1:9
ALL_PROXY=http://127.0.0.1:9
NO_PROXY=example.com
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9
OTEL_TRACES_SAMPLER=nonsense
HTTP_PORT=1
PC_PROC_NAME=router
PC_REPLICA_NUM=7
TZ=Asia/Tokyo
LANG=tr_TR.ISO-8859-9
LC_ALL=C
TMPDIR=/nowhere
SCRIPT_NAME=dev.sh
GUNICORN_CMD_ARGS=--workers x
PYTHONHOME=/nowhere
PYTHONWARNINGS=error
PC_DISABLED_PROCESSES=redis
CADDY_ADMIN=x
"""
HOSTILE: dict[str, Any] = dict(line.split("=", 1) for line in HOSTILE_LINES.strip().splitlines())
PROXIES = {name for name in HOSTILE if name.lower().endswith("_proxy")}
# A setting: the user wants the traces there.
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT"}
SET_BY_THE_STACK = {"TZ", "LANG", "HTTP_PORT", "PC_PROC_NAME", "PC_REPLICA_NUM"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with credentials, proxies and Python modules of other programs."""
    (tmp_path / ".netrc").write_text("default login x password y\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / ".curlrc").write_text("proxy = http://127.0.0.1:9\nfail\n")
    (tmp_path / "redis.py").write_text("raise SystemExit('a stranger')\n")
    (tmp_path / "bash_env").write_text("export SCRIPT_NAME=again\n")
    return tmp_path


@pytest.fixture
def no_umask() -> Iterator[None]:
    """A umask that keeps no file private, inherited by the stack."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_the_stack_runs_in_any_environment(home: Path) -> None:
    """A stack in a hostile environment pays, logs in UTC, keeps its files private and stops."""
    own = {"HOME": str(home), "PYTHONPATH": str(home), "BASH_ENV": str(home / "bash_env")}
    with running(**HOSTILE | own, QUEUE_LIMIT="77", HTTP_HOST="") as stack:
        assert stack.paid()["status"] == "captured"
        for name in SERVICES:
            inherited = stack.process(name).environ()
            assert inherited["QUEUE_LIMIT"] == "77", "a setting arrives"
            assert inherited.keys() & HOSTILE.keys() <= PROXIES | ENDPOINT | SET_BY_THE_STACK, name
        [hour] = set(re.findall(r"\d{4} (\d\d):[\d:.]+ \* Ready to accept", stack.log("redis")))
        assert f"T{hour}:" in stack.log("auth-api")
        assert f" {hour}:" in (stack.state / "process-compose.log").read_text()
        made = [path for path in stack.state.rglob("*") if path.name != "output"]
        assert [path for path in made if path.lstat().st_mode & 0o077] == []
        assert stack.platform("down").returncode == 0
        stack.supervisor.wait(STOP_SECONDS_MAX)


def test_redis_requires_its_password(stack: Stack) -> None:
    """Redis refuses commands without its password, and has no configuration file to rewrite."""
    stranger: Any = redis.Redis(port=SERVICES["redis"].port(stack.port), retry=support.ONE_TRY)
    for command in ("PING", "CONFIG REWRITE", "KEYS *"):
        with pytest.raises(redis.AuthenticationError):
            stranger.execute_command(*command.split())
    stranger.close()
    with stack.redis() as own, pytest.raises(redis.ResponseError, match="without a config file"):
        own.config_rewrite()


def test_no_secret_of_the_state_folder_is_copied(stack: Stack) -> None:
    """Secrets are in files of mode 600, and in no process title, environment, log or finding."""
    stack.paid()
    output = stack.doctor().stdout + "".join(stack.log(name) for name in SERVICES)
    for process in processes_of(stack.state):
        output += " ".join(process.cmdline()) + str(process.environ())
    for name in ("jwt-secret", "redis-password", "redis-url", "sandbox-token"):
        assert stat.S_IMODE((stack.state / name).stat().st_mode) == 0o600
        assert (stack.state / name).read_text().strip() not in output


def test_the_sandbox_requires_its_token(stack: Stack) -> None:
    """The sandbox neither lists payments nor changes faults without its token."""
    url = f"{SERVICES['psp-sandbox'].url(stack.port)}/_sandbox"
    bearer = {"Authorization": "Bearer sk_test_sandbox"}
    for method, path in (("GET", "payment_intents"), ("DELETE", "faults")):
        stack.sandbox(method, path)
        response = support.http.request(method, f"{url}/{path}", headers=bearer)
        assert response.status_code == 401
