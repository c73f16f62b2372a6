"""The images' own commands in an empty environment: their contents, and the stack they form."""

import shutil
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from devtools.catalog import SERVICES as CATALOG
from tests.images.conftest import NAMES, Image, Stack
from tests.support import ROOT, free_ports, program, redis_answers, wait_until

PYTHON = [service.name for service in CATALOG.values() if service.packages]
# Of deploy/compose.yaml, and as much again for a slow machine.
GRACE_SECONDS_MAX = 12


@pytest.mark.parametrize("name", PYTHON)
def test_an_image_has_only_what_its_service_needs(name: str, images: dict[str, Image]) -> None:
    """Its folder and the shared modules; no other service, and no package of tests or commands."""
    image = images[name]
    code = Path(image.own_environ["PYTHONPATH"])
    assert [path.name for path in code.iterdir()] == ["services"]
    own = {name.replace("-", "_"), "common", "__init__.py", "__pycache__"}
    assert {path.name for path in (code / "services").iterdir()} == own
    others = ("pytest", "hypothesis", "mypy", "httpx", "psutil")
    script = f"import importlib.util as u; print([n for n in {others} if u.find_spec(n)])"
    assert image.run("-c", script).stdout == "[]\n"


@pytest.mark.parametrize("name", NAMES)
def test_how_a_container_is_run(name: str, images: dict[str, Image]) -> None:
    """A container is not root, listens on its network at the local port, and has a description.

    Its configuration, which all can read who have the image, holds no secret; its health check
    fails when nothing listens: dependent services would start too early.
    """
    image = images[name]
    assert image.config["User"] == "65532:65532"
    assert image.own_port == CATALOG[name].port(8000)
    if name != "redis":
        assert image.own_environ["HTTP_HOST"] == "0.0.0.0"
        assert image.own_environ["HTTP_PORT"] == str(image.own_port)
    assert image.config["Labels"]["org.opencontainers.image.title"] == name
    assert image.config["StopSignal"] == "SIGTERM"
    assert all(word.startswith("/nix/store/") for word in image.config["Entrypoint"])
    assert not [x for x in image.own_environ if "SECRET" in x or "KEY" in x or "URL" in x]
    assert not image.is_healthy()


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
    done = stack.images["psp-connector"].run("-m", "services.psp_connector.deadletters", "list")
    assert (done.returncode, done.stderr) == (0, "")


def test_redis_becomes_a_node_of_a_cluster(stack: Stack) -> None:
    """It needs cluster.conf next to the password in its secrets."""
    image, port = stack.images["redis"], free_ports(2)
    secrets = image.volumes / "secrets"
    secrets.mkdir()
    shutil.copy(ROOT / "services/redis/cluster.conf", secrets / "redis-cluster.conf")
    (secrets / "redis.conf").write_text("requirepass p\nmasterauth p\n")
    words = [word.replace("/run/secrets", str(secrets)) for word in image.config["Cmd"]]
    words += ["--port", str(port), "--cluster-port", str(port + 1), "--bind", "127.0.0.1"]
    # The other Redis has the folder of the data.
    words += ["--appendonly", "no", "--cluster-config-file", "node.conf"]
    command = image.contained([*image.config["Entrypoint"], *words])
    output, folder = image.volumes / "node.log", image.work_folder
    url = f"redis://:p@127.0.0.1:{port}"
    with (
        program(command, environ=image.environ, output=output, cwd=folder),
        redis.Redis.from_url(url, decode_responses=True) as client,
    ):
        wait_until(lambda: redis_answers(url), what="the node")
        assert client.info("cluster")["cluster_enabled"] == 1
        assert client.config_get("cluster-require*") == {"cluster-require-full-coverage": "no"}


@pytest.mark.parametrize("name", reversed(NAMES))
def test_the_stop_signal_ends_it(name: str, stack: Stack) -> None:
    """Each exits with code 0 before an engine would kill it.

    The last of this file: it takes the stack down, in the order in which an engine does.
    """
    process = stack.processes[name]
    process.send_signal(signal.Signals[stack.images[name].config["StopSignal"]])
    assert process.wait(GRACE_SECONDS_MAX) == 0
