"""The images' own commands in an empty environment: their contents, and the stack they form."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from devtools.address import PORT_OFFSETS
from devtools.catalog import SERVICES as CATALOG
from tests.images.conftest import NAMES, Image, Stack
from tests.support import ONE_TRY, ROOT, free_ports, program, wait_until

PYTHON = [service.name for service in CATALOG.values() if service.packages]
# Of deploy/compose.yaml, and as much again for a slow machine.
GRACE_SECONDS_MAX = 12


@pytest.mark.parametrize("name", PYTHON)
def test_an_image_has_only_its_own_code(name: str, images: dict[str, Image]) -> None:
    """An image has its service's folder and the shared modules; no other service, no test."""
    image = images[name]
    code = Path(image.own_environ["PYTHONPATH"])
    assert [path.name for path in code.iterdir()] == ["services"]
    own = {name.replace("-", "_"), "common", "__init__.py", "__pycache__"}
    assert {path.name for path in (code / "services").iterdir()} == own


@pytest.mark.parametrize("name", PYTHON)
def test_an_image_has_no_package_of_others(name: str, images: dict[str, Image]) -> None:
    """An image has no packages of tests or of developers' commands."""
    others = ("pytest", "hypothesis", "mypy", "httpx", "psutil")
    code = f"import importlib.util as u; print([n for n in {others} if u.find_spec(n)])"
    done = subprocess.run(
        images[name].command("-c", code),
        env=images[name].own_environ, cwd="/",
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_how_a_container_is_run(name: str, images: dict[str, Image]) -> None:
    """A container is not root, listens on its network at the local port, and has a description."""
    image = images[name]
    assert image.config["User"] == "65532:65532"
    assert 8000 + PORT_OFFSETS[name] == image.own_port
    if name != "redis":
        assert image.own_environ["HTTP_HOST"] == "0.0.0.0"
        assert str(image.own_port) == image.own_environ["HTTP_PORT"]
    assert name == image.config["Labels"]["org.opencontainers.image.title"]
    assert image.config["StopSignal"] == "SIGTERM"
    assert all(word.startswith("/nix/store/") for word in image.config["Entrypoint"])


def test_an_image_holds_no_secret(images: dict[str, Image]) -> None:
    """Everyone who has an image can read its configuration."""
    names = {name for image in images.values() for name in image.own_environ}
    assert {name for name in names if "SECRET" in name or "KEY" in name or "URL" in name} == set()


@pytest.mark.parametrize("name", NAMES)
def test_health_fails_when_nothing_listens(name: str, images: dict[str, Image]) -> None:
    """Dependent services would start too early if the health check passed."""
    assert images[name].healthcheck({}).returncode != 0


def captured(client: httpx.Client, token: str, path: str) -> dict[str, Any] | None:
    found: dict[str, Any] = client.get(path, headers={"Authorization": f"Bearer {token}"}).json()
    return found if found.get("status") == "captured" else None


def test_they_make_a_stack(stack: Stack) -> None:
    """A payment passes through all six images, with their own commands and environments."""
    with httpx.Client(base_url=stack.url, timeout=20) as client:
        user = {"username": "alice", "password": "password"}
        token = client.post("/auth/token", json=user).json()["token"]
        accepted = client.post(
            "/transactions",
            json={"amount": 1250, "currency": "USD"},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert accepted.status_code == 202
        path = accepted.headers["Location"]
        found = wait_until(lambda: captured(client, token, path), seconds_max=20, what="capture")
    assert found["loyalty_points"] == 12


@pytest.mark.parametrize("name", ["auth-api", "core-api"])
def test_metrics_are_counted_in_tmp(name: str, stack: Stack) -> None:
    """The workers' shared files are where a read-only container can write."""
    response = httpx.get(f"http://127.0.0.1:{stack.images[name].port}/metrics", timeout=20)
    assert response.status_code == 200
    assert "http_request_duration_seconds_count" in response.text


def test_an_admin_command_runs_in_an_image(stack: Stack) -> None:
    """`docker compose run psp-connector -m services.psp_connector.deadletters list`."""
    image = stack.images["psp-connector"]
    done = subprocess.run(
        image.command("-m", "services.psp_connector.deadletters", "list"),
        env=image.environ(stack.given(image.name)), cwd="/",
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_redis_becomes_a_node_of_a_cluster(stack: Stack) -> None:
    """It needs cluster.conf next to the password in its secrets."""
    image, port, secrets = stack.images["redis"], free_ports(2), stack.folder / "secrets"
    secrets.mkdir()
    shutil.copy(ROOT / "services/redis/cluster.conf", secrets / "redis-cluster.conf")
    (secrets / "redis.conf").write_text("requirepass p\nmasterauth p\n")
    words = [word.replace("/run/secrets", str(secrets)) for word in image.config["Cmd"]]
    node = ["--port", str(port), "--cluster-port", str(port + 1), "--bind", "127.0.0.1"]
    with (
        program(
            # The other Redis has the folder of the data.
            image.command(
                *words, *node, "--appendonly", "no", "--cluster-config-file", "node.conf"
            ),
            environ=image.environ({}),
            output=stack.folder / "node.log",
            cwd=image.work_folder,
        ),
        redis.Redis(port=port, password="p", retry=ONE_TRY) as client,
    ):
        wait_until(lambda: answers(client), what="the node")
        assert client.info("cluster")["cluster_enabled"] == 1
        assert client.config_get("cluster-require*") == {"cluster-require-full-coverage": "no"}


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.mark.parametrize("name", reversed(NAMES))
def test_the_stop_signal_ends_it(name: str, stack: Stack) -> None:
    """Each ends by itself before an engine would kill it, and says that all was well.

    The last of this file: it takes the stack down, in the order in which an engine does.
    """
    process = stack.processes[name]
    process.send_signal(signal.Signals[stack.images[name].config["StopSignal"]])
    assert process.wait(GRACE_SECONDS_MAX) == 0
