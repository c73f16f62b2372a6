"""deploy/compose.yaml matches process-compose.yaml: processes, order, variables, limits."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from devtools import catalog
from tests.devtools.conftest import SECRETS
from tests.support import ROOT, call, free_ports, redis_server, script

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


def test_it_runs_the_same_processes_in_the_same_order() -> None:
    """A service waits for the health of what it waits for locally; developer tools are missing."""
    found = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert found == {
        name: {
            needed: {"condition": "service_healthy"}
            for needed in set(process.get("depends_on", {})) - LOCAL_ONLY
        }
        for name, process in LOCAL.items()
        if name not in LOCAL_ONLY
    }


def test_the_router_gets_only_variables_it_reads() -> None:
    """Each of its variables is in the Caddyfile."""
    caddyfile = (ROOT / "services/router/Caddyfile").read_text()
    read = set(re.findall(r"{\$(\w+)", caddyfile))
    # Caddy reads these by itself.
    otel = {name for name in SERVICES["router"]["environment"] if name.startswith("OTEL_")}
    assert set(SERVICES["router"]["environment"]) - otel == ROUTER
    assert read >= ROUTER


def test_variables_are_passed_without_defaults() -> None:
    """`NAME: ${NAME:-}`: only the settings class has the default."""
    odd = {
        name
        for service in SERVICES.values()
        for name, text in service.get("environment", {}).items()
        if "${" in text and text != f"${{{name}:-}}"
    }
    assert odd == {"PSP_URL", "TRACING", "USERS_FILE", "no_proxy"}


def test_the_addresses_are_those_of_the_local_ports() -> None:
    """Each service has the same port; only the router's is published, and on this machine only."""
    text = (ROOT / "deploy/compose.yaml").read_text()
    for name, port in re.findall(r"\b([a-z][a-z0-9-]*):(8\d\d\d)\b", text):
        assert int(port) == catalog.SERVICES[name].port(8000), name
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"router": ["127.0.0.1:${PLATFORM_PORT:-8000}:8000"]}


@pytest.mark.parametrize("service", list(SERVICES))
def test_containers_are_confined_and_end_in_time(service: str) -> None:
    """Containers are read-only and unprivileged, and have time to finish their work."""
    found = SERVICES[service]
    seconds = int(found["stop_grace_period"].removesuffix("s"))
    assert seconds >= LOCAL[service]["shutdown"]["timeout_seconds"]
    assert found["image"] == f"platform/{service}:latest"
    assert found["pull_policy"] == "never"
    assert found["read_only"]
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in found, "the image's own user is not root"


def called_by(service: str) -> set[str]:
    """The services whose addresses are in a service's environment."""
    environment = SERVICES[service].get("environment", {})
    named = set(re.findall(r"\b([a-z][a-z0-9-]*):8\d\d\d\b", " ".join(environment.values())))
    return named | ({"redis"} if "REDIS_URL_FILE" in environment else set())


@pytest.mark.parametrize("one", list(SERVICES))
def test_only_callers_share_a_network(one: str) -> None:
    """Two services share a network if and only if one has the other's address."""
    mine = set(SERVICES[one]["networks"])
    seen = {other for other in SERVICES if mine & set(SERVICES[other]["networks"])} - {one}
    callers = {other for other in SERVICES if one in called_by(other)}
    assert seen == called_by(one) | callers


def test_only_the_router_and_the_psp_have_outbound_access() -> None:
    """All services with users, money or secrets are on internal networks."""
    outside = {name for name, network in COMPOSE["networks"].items() if not network}
    assert {name for name, service in SERVICES.items() if outside & set(service["networks"])} == {
        "router",
        "psp-connector",
        "psp-sandbox",
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with fakes: Nix builds an image that prints its name, and an engine loads it."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    script(tmp_path / "nixw", 'printf "#!/bin/sh\\necho $4\\n" >"$3"; chmod +x "$3"')
    script(tmp_path / "engine", 'echo "$1 $(cat)" >>loaded')
    return tmp_path


def prepare(checkout: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DOCKER": str(checkout / "engine")}
    return call(["sh", str(checkout / "deploy/prepare.sh"), *args], environ)


def test_prepare_loads_every_image(checkout: Path) -> None:
    """Each image of the compose file is built and loaded; if one cannot be built, none is."""
    assert prepare(checkout).returncode == 0
    loaded = (checkout / "loaded").read_text().splitlines()
    assert set(loaded) == {f"load .#image-{name}" for name in SERVICES}
    (checkout / "loaded").unlink()
    script(checkout / "nixw", "exit 1")
    done = prepare(checkout)
    assert done.returncode == 1
    assert "prepare: no image of redis. Images are made on Linux, from nixpkgs" in done.stderr
    assert not (checkout / "loaded").exists()


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("-h", 0), ("-x", 2), ("postgres", 2)])
def test_prepare_helps_and_writes_nothing(checkout: Path, word: str, code: int) -> None:
    """`--help` and an unknown image name change nothing."""
    done = prepare(checkout, "router", word)
    assert (done.returncode, done.stdout[:25]) == (code, "usage: deploy/prepare.sh ")
    assert not (checkout / ".state").exists()
    assert not (checkout / "loaded").exists()


def test_every_secret_is_a_file() -> None:
    """No variable holds a secret (`docker inspect` shows it); files that are named are mounted."""
    for service in SERVICES.values():
        environment = service.get("environment", {})
        assert SECRETS.isdisjoint(environment)
        files = [text for name, text in environment.items() if name.endswith("_FILE")]
        mounted = {f"/run/secrets/{name}" for name in service.get("secrets", ())}
        assert {file for file in files if file.startswith("/run/")} <= mounted


def test_prepare_keeps_its_secrets_to_this_user(checkout: Path) -> None:
    """Each secret is created once; containers can read it, other users cannot."""
    prepare(checkout, "router")
    folder = checkout / ".state/compose"
    paths = [re.sub(r"\${.*:-(.*)}", r"\1", one["file"]) for one in COMPOSE["secrets"].values()]
    files = [checkout / "deploy" / path for path in paths]
    first = [file.read_text() for file in files]
    prepare(checkout, "router")
    assert [file.read_text() for file in files] == first
    assert len((folder / "jwt-secret").read_text()) == 64
    assert (folder / "jwt-secret-previous").read_text() == ""
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o444}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_redis_allows_only_ping_without_a_password(checkout: Path, tmp_path: Path) -> None:
    """The health check's user may do nothing else; the secret's address may do everything."""
    prepare(checkout, "router")
    folder, port = checkout / ".state/compose", free_ports(1)
    options = ["--include", f"{folder}/redis*.conf"]
    url = (folder / "redis-url").read_text().strip().replace("redis:8005", f"127.0.0.1:{port}")
    with redis_server(tmp_path / "redis", port, *options):
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis(port=port, username="health", password="none") as health:
            assert health.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                health.keys()
        with redis.Redis.from_url(url) as own:
            assert own.config_set("maxclients", "100")
            own.eval("redis.call('SET', 'a', 1) redis.call('SET', 'b', 1)", 0)
    with redis_server(tmp_path / "redis", port, *options), redis.Redis.from_url(url) as own:
        assert own.dbsize() == 2, "scripts' writes are lost by a restart"
