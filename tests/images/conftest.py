"""The images, as nix/images.nix describes them, run without a container engine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devtools.address import BLOCK, PORT_OFFSETS
from devtools.catalog import SERVICES
from tests.images.container import contained, place
from tests.support import free_ports, program, wait_until

NAMES = sorted(SERVICES, key=lambda name: (name == "router", SERVICES[name].needs))
"""What needs nothing first, the router last."""
SECRET = "a secret of the tests, which has more than 32 bytes"


def described() -> dict[str, Any]:
    """The output of `nix build .#image-configs`; the check `images` sets the path."""
    file = os.environ.get("IMAGE_CONFIGS")
    if not file:
        pytest.skip("IMAGE_CONFIGS is not set: ./nixw build .#image-configs, or nix flake check")
    found: dict[str, Any] = json.loads(Path(file).read_text())
    return found


@dataclass(frozen=True)
class Image:
    """An image, and how to run a container of it here, on its own port."""

    name: str
    config: dict[str, Any]
    port: int
    volumes: Path

    @property
    def own_port(self) -> int:
        (exposed,) = self.config["ExposedPorts"]
        return int(exposed.removesuffix("/tcp"))

    @property
    def own_environ(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])

    def environ(self, given: Mapping[str, str]) -> dict[str, str]:
        """Only the image's variables and those of the container."""
        # The image listens on all addresses, the tests on this machine's own alone.
        here = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(self.port)}
        return {**self.own_environ, **here, **given}

    def command(self, *args: str) -> list[str]:
        """The entry point with the image's arguments, or with others."""
        return self._contained([*self.config["Entrypoint"], *(args or self.config["Cmd"])])

    def healthcheck(self, given: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        kind, *args = self.config["Healthcheck"]["Test"]
        assert kind == "CMD", "there is no shell"
        return subprocess.run(
            self._contained([self._moved(word) for word in args]),
            env=self.environ(given), cwd="/", stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip

    @property
    def work_folder(self) -> Path:
        """The image's working folder or, for a volume, the folder used here."""
        folder = Path(self.config["WorkingDir"])
        return self.volumes / self.name if folder == Path("/data") else folder

    def _contained(self, command: list[str]) -> list[str]:
        return contained(command, volumes=self.volumes, folder=self.work_folder)

    def _moved(self, word: str) -> str:
        """An argument with the image's port replaced by the port used here."""
        return word if word.startswith("/") else word.replace(str(self.own_port), str(self.port))


@dataclass(frozen=True)
class Stack:
    """The images as one stack: their variables, and folders as volumes."""

    images: Mapping[str, Image]
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def given(self, name: str) -> dict[str, str]:
        """A service's variables as in deploy/compose.yaml, with the tests' addresses."""
        at = {image.name: f"127.0.0.1:{image.port}" for image in self.images.values()}
        secret = {"JWT_SECRET_FILE": f"{self.folder}/jwt-secret"}
        redis = {"REDIS_URL": f"redis://{at['redis']}/0"}
        return {
            "redis": {},
            "auth-api": secret,
            "core-api": {**secret, **redis},
            "psp-sandbox": {"SANDBOX_DATABASE": f"{self.folder}/psp-sandbox/data.sqlite"},
            "psp-connector": {
                **redis,
                "PSP_URL": f"http://{at['psp-sandbox']}",
                "PSP_API_KEY_FILE": f"{self.folder}/psp-api-key",
            },
            "router": {f"{s.variable}_ADDRESS": at[s.name] for s in SERVICES.values() if s.route},
        }.get(name, redis if "redis" in SERVICES[name].needs else {})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.images['router'].port}"

    @contextlib.contextmanager
    def container(self, name: str) -> Iterator[None]:
        """Runs what the image's container would; it is healthy when this returns."""
        image = self.images[name]
        # Redis has its address on the command line, where the last one counts.
        here = ["--port", str(image.port), "--bind", "127.0.0.1"] if name == "redis" else []
        command = image.command(*image.config["Cmd"], *here)
        given = self.given(name)
        output = self.folder / f"{name}.log"
        environ = image.environ(given)
        with program(command, environ=environ, output=output, cwd=image.work_folder) as process:
            self.processes[name] = process
            wait_until(lambda: self._healthy(name, output), seconds_max=60, what=f"{name}'s health")
            yield

    def _healthy(self, name: str, output: Path) -> bool:
        ended = self.processes[name].poll()
        assert ended is None, f"{name} ended with {ended}:\n{output.read_text()}"
        return self.images[name].healthcheck(self.given(name)).returncode == 0


@pytest.fixture(scope="session")
def images(folder: Path) -> dict[str, Image]:
    """All images by name."""
    configs = described()["configs"]
    first = free_ports(BLOCK)
    assert set(NAMES) == set(configs)
    return {
        name: Image(name, config, first + PORT_OFFSETS[name], folder)
        for name, config in configs.items()
    }


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """The folder for volumes and secrets; not in /tmp, which each container has to itself."""
    with tempfile.TemporaryDirectory(prefix="images-", dir=place()) as path:
        folder = Path(path)
        for name, text in {"jwt-secret": SECRET, "psp-api-key": "sk_test_sandbox"}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o444)
        for name in ("redis", "psp-sandbox"):
            (folder / name).mkdir(mode=0o700)
        yield folder


@pytest.fixture(scope="session")
def stack(images: dict[str, Image], folder: Path) -> Iterator[Stack]:
    """All images, started in order, each when its dependencies are healthy."""
    found = Stack(images, folder)
    with contextlib.ExitStack() as running:
        for name in NAMES:
            running.enter_context(found.container(name))
        yield found
