"""deploy/compose.yaml is the stack of process-compose.yaml: processes, order, variables, limits."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import redis
import yaml

from devtools import catalog, environment
from devtools.address import PORT_OFFSETS
from services.common.settings import FILE_ALLOWED, Secret
from tests.support import ROOT, free_ports, redis_server

if TYPE_CHECKING:
    from pathlib import Path

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LOCAL: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "process-compose.yaml").read_text())[
    "processes"
]
# For a developer's machine only.
LOCAL_ONLY = {"console", "preflight", "ready", "reload", "smoke"}
ROUTER = {"ALLOWED_HOSTS", "LOG_LEVEL", "TRACING"} | {
    f"{one.variable}_ADDRESS" for one in catalog.SERVICES.values() if one.route
}
# With a default, or made of another variable.
OWN = {"REDIS_URL", "PSP_URL", "TRACING"}


def variables(service: str) -> set[str]:
    """What the settings class reads, a secret by its file; where it listens is the image's."""
    fields = environment.SETTINGS[service].model_fields
    names = {
        f"{name}_file" if field.annotation in (Secret, Secret | None) else name
        for name, field in fields.items()
    }
    names |= {f"{name}_file" for name, field in fields.items() if FILE_ALLOWED in field.metadata}
    # A second secret only while it is being changed, so it has no file that must be there.
    names = {"jwt_secret_previous" if n == "jwt_secret_previous_file" else n for n in names}
    return {name.upper() for name in names - {"http_port", "http_host"}}


def test_it_runs_the_same_processes() -> None:
    """Each process of the local stack is a service, but for what only a developer needs."""
    assert set(LOCAL) - LOCAL_ONLY == set(SERVICES)


@pytest.mark.parametrize("service", list(SERVICES))
def test_it_starts_in_the_same_order(service: str) -> None:
    """A service waits for what it waits for locally, and for its health."""
    local = set(LOCAL[service].get("depends_on", {})) - LOCAL_ONLY
    needed = SERVICES[service].get("depends_on", {})
    assert {name: {"condition": "service_healthy"} for name in local} == needed


@pytest.mark.parametrize("service", list(environment.SETTINGS))
def test_each_setting_can_be_given(service: str) -> None:
    """A service gets each variable of its settings class, and no other."""
    assert variables(service) == set(SERVICES[service]["environment"])


def test_the_router_is_told_what_it_reads() -> None:
    """Each variable is one of the Caddyfile's."""
    caddyfile = (ROOT / "services/router/Caddyfile").read_text()
    read = set(re.findall(r"{\$([A-Z_]+)", caddyfile))
    # Caddy reads these by itself.
    otel = {name for name in SERVICES["router"]["environment"] if name.startswith("OTEL_")}
    assert set(SERVICES["router"]["environment"]) - otel == ROUTER
    assert read >= ROUTER


def test_a_variable_has_its_own_name_and_no_default_of_its_own() -> None:
    """`NAME: ${NAME:-}`: a default is said once, in the settings class."""
    odd = {
        (name, text)
        for service in SERVICES.values()
        for name, text in service.get("environment", {}).items()
        if "${" in text
        and name not in {"REDIS_URL", "PSP_URL", "TRACING"}
        and text != f"${{{name}:-}}"
    }
    assert odd == set()


def test_the_addresses_are_those_of_the_local_ports() -> None:
    """Inside, each service has the port that it has on a developer's machine."""
    text = (ROOT / "deploy/compose.yaml").read_text()
    for name, port in re.findall(r"\b([a-z-]+):(8\d\d\d)\b", text):
        assert 8000 + PORT_OFFSETS[name] == int(port), name
    assert SERVICES["router"]["ports"] == ["127.0.0.1:${PLATFORM_PORT:-8000}:8000"]


def test_only_the_router_is_published() -> None:
    """From outside, and there only from this machine, one port leads in."""
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["router"]


@pytest.mark.parametrize("service", list(SERVICES))
def test_each_can_do_little_harm(service: str) -> None:
    """Nothing can be written but what is named, no right can be had, and the image is ours."""
    found = SERVICES[service]
    assert f"platform/{service}:latest" == found["image"]
    assert found["pull_policy"] == "never"
    assert found["read_only"]
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in found, "the image's own user is not root"


@pytest.mark.parametrize("service", list(SERVICES))
def test_each_has_as_long_to_stop_as_locally(service: str) -> None:
    """What finishes its work within the local bound is not killed here either."""
    seconds = int(SERVICES[service]["stop_grace_period"].removesuffix("s"))
    assert LOCAL[service]["shutdown"]["timeout_seconds"] <= seconds


def called_by(service: str) -> set[str]:
    """The services whose addresses are in a service's environment."""
    environment = SERVICES[service].get("environment", {})
    named = set(re.findall(r"\b([a-z-]+):8\d\d\d\b", " ".join(environment.values())))
    return named | ({"redis"} if "REDIS_URL_FILE" in environment else set())


@pytest.mark.parametrize("one", list(SERVICES))
def test_only_who_calls_another_sees_it(one: str) -> None:
    """Two services share a network exactly when one has the other's address."""
    mine = set(SERVICES[one]["networks"])
    seen = {other for other in SERVICES if mine & set(SERVICES[other]["networks"])} - {one}
    callers = {other for other in SERVICES if one in called_by(other)}
    assert called_by(one) | callers == seen


def test_only_the_router_and_the_psp_have_a_way_out() -> None:
    """What holds users, money or secrets of ours is on internal networks."""
    outside = {name for name, network in COMPOSE["networks"].items() if not network}
    assert {name for name, service in SERVICES.items() if outside & set(service["networks"])} == {
        "router",
        "psp-connector",
        "psp-sandbox",
    }


def fake_program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which Nix builds an image that says its name, and an engine that takes it."""
    (tmp_path / "deploy").mkdir()
    script = tmp_path / "deploy/prepare.sh"
    script.write_text((ROOT / "deploy/prepare.sh").read_text())
    (tmp_path / "deploy/compose.yaml").write_text((ROOT / "deploy/compose.yaml").read_text())
    script.chmod(0o755)
    fake_program(tmp_path, "nixw", 'printf "#!/bin/sh\\necho $4\\n" >"$3"; chmod +x "$3"')
    fake_program(tmp_path, "engine", 'echo "$1 $(cat)" >>loaded')
    return tmp_path


def prepare(checkout: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DOCKER": str(checkout / "engine")}
    return subprocess.run(
        ["sh", checkout / "deploy/prepare.sh", *args],
        env=environ, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def test_prepare_loads_every_image(checkout: Path) -> None:
    """Each image of the compose file is built and handed to the engine."""
    assert prepare(checkout).returncode == 0
    loaded = (checkout / "loaded").read_text().splitlines()
    assert {f"load .#image-{name}" for name in SERVICES} == set(loaded)


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("-h", 0), ("-x", 2), ("postgres", 2)])
def test_prepare_helps_and_writes_nothing(checkout: Path, word: str, code: int) -> None:
    """Help is no name of an image, nor is a word that no image has."""
    done = prepare(checkout, "router", word)
    assert (code, True) == (done.returncode, done.stdout.startswith("usage: deploy/prepare.sh"))
    assert not (checkout / ".state").exists()
    assert not (checkout / "loaded").exists()


def test_prepare_keeps_its_secrets_to_this_user(checkout: Path) -> None:
    """A secret is made once; a container may read it, another user of this machine may not."""
    prepare(checkout, "router")
    folder = checkout / ".state/compose"
    first = (folder / "jwt-secret").read_text()
    prepare(checkout, "router")
    assert len(first) == 64
    assert first == (folder / "jwt-secret").read_text()
    assert (folder / "psp-api-key").read_text().strip() == "sk_test_sandbox"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "jwt-secret").stat().st_mode) == 0o444


def test_redis_does_for_strangers_what_its_health_check_asks(
    checkout: Path, tmp_path: Path
) -> None:
    """Who has no password may PING; the address of the secret may do everything."""
    prepare(checkout, "router")
    folder, port = checkout / ".state/compose", free_ports(1)
    options = ["--include", f"{folder}/redis*.conf"]
    with redis_server(tmp_path / "redis", port, *options), redis.Redis(port=port) as stranger:
        with pytest.raises(redis.ResponseError):
            stranger.keys()
        url = (folder / "redis-url").read_text().strip()
        with redis.Redis.from_url(url.replace("redis:8005", f"127.0.0.1:{port}")) as own:
            assert own.config_set("maxclients", "100")


def test_the_secrets_are_where_the_compose_file_looks() -> None:
    """What prepare.sh makes is what is given when nothing else is said."""
    files = {name: found["file"] for name, found in COMPOSE["secrets"].items()}
    assert files == {
        "jwt-secret": "${JWT_SECRET_FILE:-../.state/compose/jwt-secret}",
        "psp-api-key": "${PSP_API_KEY_FILE:-../.state/compose/psp-api-key}",
        "redis.conf": "../.state/compose/redis.conf",
        "redis-url": "${REDIS_URL_FILE:-../.state/compose/redis-url}",
        "sandbox-token": "${SANDBOX_TOKEN_FILE:-../.state/compose/sandbox-token}",
    }


def test_prepare_says_where_images_cannot_be_made(checkout: Path) -> None:
    """When Nix has no such image, it ends with a sentence, and loads nothing."""
    fake_program(checkout, "nixw", "exit 1")
    done = prepare(checkout)
    assert done.returncode == 1
    assert "prepare: no image of redis. Images are made on Linux, from nixpkgs" in done.stderr
    assert not (checkout / "loaded").exists()
