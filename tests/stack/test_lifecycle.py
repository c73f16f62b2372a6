"""process-compose runs the stack's file."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from devtools.address import BLOCK, derived_port, is_free
from tests import support
from tests.stack.stack import compose, environment, merchant, running


def test_two_checkouts_run_side_by_side() -> None:
    """With `auto`, in `.env` or the shell, each has its own ports and stops independently."""
    with own_block() as one:
        (one / ".env").write_text("PLATFORM_PORT=auto\n")
        with running(state=one, port=derived_port(one), cwd=one, PLATFORM_PORT="") as a:
            with (
                own_block() as two,
                running(state=two, port=derived_port(two), PLATFORM_PORT="auto") as b,
            ):
                for stack in (a, b):
                    paid = merchant(stack.environ, "pay", "1250", "USD", "--as", "alice")
                    assert (paid.returncode, paid.stderr) == (0, "")
                    assert f"the router listens on port {stack.port}" in stack.log("preflight")
                assert (a.points(), b.points()) == (12, 12)
            assert a.paid()["status"] == "captured"
            assert a.points() == 24


@contextlib.contextmanager
def own_block() -> Iterator[Path]:
    """A state folder whose ports are free."""
    for _try in range(50):
        with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
            port = derived_port(Path(folder))
            if all(is_free(port + offset) for offset in range(BLOCK)):
                yield Path(folder)
                return
    raise RuntimeError("no folder with a free block of ports found in 50 tries")


def test_a_restart_before_the_ready_line(tmp_path: Path) -> None:
    """What waits for Redis is not skipped by it; what has not started yet is not restarted."""
    server = shutil.which("redis-server")
    support.script(tmp_path / "redis-server", f'sleep 1\nexec {server} "$@"')
    with running(healthy=False, PATH=f"{tmp_path}:{os.environ['PATH']}") as stack:
        support.wait_until(lambda: stack.has_begun("redis"), what="the start of redis")
        before = stack.process("redis")
        refused = stack.compose("process", "restart", "core-api")
        reason = "core-api has not started yet; it waits for preflight, redis\n"
        assert (refused.returncode, refused.stderr) == (1, reason)
        refused = stack.compose("namespace", "restart", "infrastructure")
        assert refused.returncode == 1
        assert refused.stderr.startswith("the stack is still starting")
        for _ in range(2):  # the second one while process-compose waits to start it again
            assert stack.compose("process", "restart", "redis").returncode == 0
        stack.wait_healthy()
        assert stack.process("redis") != before
        support.wait_until(
            lambda: any(one.name == "ready" and one.has_succeeded for one in stack.states()),
            what="the summary",
        )


def test_a_log_is_rotated_and_outlives_a_restart(tmp_path: Path) -> None:
    """With the stack's settings, but a size of 1 MB, no line is lost."""
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
