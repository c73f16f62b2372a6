"""The images, as nix/images.nix describes them, run without a container engine."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devtools.address import BLOCK
from devtools.catalog import SERVICES
from tests.images.container import contained, volume_root
from tests.support import CLOSED_PORT, call, free_ports, program, wait_until

NAMES = sorted(SERVICES, key=lambda name: (name == "router", SERVICES[name].needs))
"""Services without dependencies first, the router last."""
SECRET = "a secret of the tests, which has more than 32 bytes"


@dataclass(frozen=True)
class Image:
    """An image, and how to run a container of it here: on its own port, with these variables."""

    name: str
    config: dict[str, Any]
    port: int
    volumes: Path
    variables: dict[str, str]

    @property
    def own_port(self) -> int:
        (exposed,) = self.config["ExposedPorts"]
        return int(exposed.removesuffix("/tcp"))

    @property
    def own_environ(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])

    @property
    def environ(self) -> dict[str, str]:
        """Only the image's variables and those of the container."""
        # The image listens on all addresses, the tests on this machine's own alone.
        here = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(self.port)}
        # An engine may give its containers the user's proxy.
        here["http_proxy"] = f"http://127.0.0.1:{CLOSED_PORT}"
        return {**self.own_environ, **here, **self.variables}

    @property
    def work_folder(self) -> Path:
        """The image's working folder or, for a volume, the folder used here."""
        folder = Path(self.config["WorkingDir"])
        return self.volumes / self.name if folder == Path("/data") else folder

    def contained(self, command: list[str]) -> list[str]:
        return contained(command, volumes=self.volumes, folder=self.work_folder)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs the entry point with other arguments than the image's."""
        command = self.contained([*self.config["Entrypoint"], *args])
        return call(command, self.environ, cwd=Path("/"), seconds_max=20)

    def is_healthy(self) -> bool:
        kind, *words = self.config["Healthcheck"]["Test"]
        assert kind == "CMD", "there is no shell"
        ours, own = str(self.port), str(self.own_port)
        command = [word if word.startswith("/") else word.replace(own, ours) for word in words]
        done = call(self.contained(command), self.environ, cwd=Path("/"), seconds_max=20)
        return done.returncode == 0

    @contextlib.contextmanager
    def container(self) -> Iterator[subprocess.Popen[bytes]]:
        """Runs what the image's container would; it is healthy when this returns."""
        # Redis has its address on the command line, where the last one counts.
        here = ["--port", str(self.port), "--bind", "127.0.0.1"] if self.name == "redis" else []
        command = self.contained([*self.config["Entrypoint"], *self.config["Cmd"], *here])
        output = self.volumes / f"{self.name}.log"

        def healthy() -> bool:
            assert process.poll() is None, f"{self.name} has ended:\n{output.read_text()}"
            return self.is_healthy()

        started = program(command, environ=self.environ, output=output, cwd=self.work_folder)
        with started as process:
            wait_until(healthy, what=f"{self.name}'s health")
            yield process


@dataclass(frozen=True)
class Stack:
    """The running images."""

    images: dict[str, Image]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.images['router'].port}"


@pytest.fixture(scope="session")
def images(folder: Path) -> dict[str, Image]:
    """All images by name."""
    file = os.environ.get("IMAGE_CONFIGS")  # set by the check `images`
    if not file:
        pytest.skip("IMAGE_CONFIGS is not set: ./nixw build .#image-configs, or nix flake check")
    configs = json.loads(Path(file).read_text())
    assert set(NAMES) == set(configs)
    first = free_ports(BLOCK)
    ports = {name: SERVICES[name].port(first) for name in NAMES}
    own = variables_of(folder, {name: f"127.0.0.1:{port}" for name, port in ports.items()})
    return {
        name: Image(name, configs[name], ports[name], folder, own.get(name, {})) for name in NAMES
    }


def variables_of(folder: Path, at: dict[str, str]) -> dict[str, dict[str, str]]:
    """The services' variables as in deploy/compose.yaml, with these addresses."""
    secret = {"JWT_SECRET_FILE": f"{folder}/jwt-secret"}
    redis = {"REDIS_URL": f"redis://{at['redis']}/0"}
    psp = {"PSP_URL": f"http://{at['psp-sandbox']}", "PSP_API_KEY_FILE": f"{folder}/psp-api-key"}
    new = {name: redis for name, service in SERVICES.items() if "redis" in service.needs}
    return new | {
        "auth-api": secret,
        "core-api": {**secret, **redis},
        "psp-sandbox": {"SANDBOX_DATABASE": f"{folder}/psp-sandbox/data.sqlite"},
        "psp-connector": {**redis, **psp},
        "router": {
            f"{one.variable}_ADDRESS": at[one.name] for one in SERVICES.values() if one.route
        },
    }


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """The folder for volumes and secrets; not in /tmp, which each container has to itself."""
    with tempfile.TemporaryDirectory(prefix="images-", dir=volume_root()) as path:
        folder = Path(path)
        for name, text in {"jwt-secret": SECRET, "psp-api-key": "sk_test_sandbox"}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o444)
        for name in ("redis", "psp-sandbox"):
            (folder / name).mkdir(mode=0o700)
        yield folder


@pytest.fixture(scope="session")
def stack(images: dict[str, Image]) -> Iterator[Stack]:
    """All images, started in order, each when its dependencies are healthy."""
    found = Stack(images)
    with contextlib.ExitStack() as running:
        for name in NAMES:
            found.processes[name] = running.enter_context(images[name].container())
        yield found
