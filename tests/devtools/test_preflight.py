"""Preflight names everything that prevents a start, with its remedy."""

import contextlib
import os
import socket
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from devtools import envfile, preflight, state
from devtools.address import CLUSTER_BLOCK, NODES
from devtools.catalog import LISTENERS, SERVICES
from devtools.checkout import current
from devtools.doctor.__main__ import settings
from devtools.preflight import faults
from tests.devtools.conftest import readers_of
from tests.receiver import receiver
from tests.support import free_ports, redis_server

CLUSTER_FILE = "process-compose.yaml,process-compose.cluster.yaml"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_creates_state_and_secret(environ: dict[str, str], tmp_path: Path) -> None:
    """Folder and secret are private, and the secret is created once.

    An empty one, as a power cut may leave it, is replaced.
    """
    assert faults(environ) == []
    secret = tmp_path / ".state" / "jwt-secret"
    assert (mode(secret.parent), mode(secret)) == (0o700, 0o600)
    first = secret.read_text()
    assert len(first.strip()) == 64
    secret.chmod(0o644)
    assert faults(environ) == []
    assert secret.read_text() == first
    assert mode(secret) == 0o600
    secret.write_text("")
    assert faults(environ) == []
    assert len(secret.read_text().strip()) == 64


def test_what_it_writes_depends_on_the_redis(environ: dict[str, str], tmp_path: Path) -> None:
    """A cluster's nodes get its addresses; for an external Redis, no number of partitions."""
    folder, first = tmp_path / ".state", free_ports(CLUSTER_BLOCK + 1)
    environ |= {"PLATFORM_PORT": str(first)}
    url = f"redis://127.0.0.1:{first + CLUSTER_BLOCK}"
    with redis_server(tmp_path / "external", first + CLUSTER_BLOCK):
        assert faults(environ | {"REDIS_URL": url}) == []
    assert not (folder / "partitions").exists()
    node = folder / "redis/node-0/nodes.conf"
    node.parent.mkdir()
    node.write_text(f"{'0' * 40} 127.0.0.1:1@3 myself,master - 0 0 1 connected\n")
    for cluster, count in (("", 1), ("1", NODES)):
        assert "127.0.0.1:1@3" in node.read_text()
        assert faults(environ | {"REDIS_CLUSTER": cluster, "PARTITIONS": "4"}) == []
        assert len((folder / "redis-url").read_text().split(",")) == count
    assert f"127.0.0.1:{first + 5}@{first + 7}" in node.read_text()


def test_a_file_that_cannot_be_written_is_a_fault(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk or a folder in the way is named, wherever it is met."""
    (tmp_path / ".state" / "environment").mkdir(parents=True)
    assert preflight.main(environ) == 78
    assert "cannot be written: [Errno 21] Is a directory" in capsys.readouterr().err


def test_all_faults_are_reported_at_once(environ: dict[str, str], tmp_path: Path) -> None:
    """One report has faults of `.env`, shell, users file and ports."""
    (tmp_path / ".env").write_text("WORKERS 2\nQUEUE_LIMIT=many\nPSP_URL=nowhere\nLOG_LEVL=x\n")
    (tmp_path / "users.json").write_text('[{"id": 0}]')
    environ |= envfile.read(tmp_path / ".env").values
    environ |= {"REDIS_URL": "localhost", "WORKERS": "0", "HTTP_HOST": "::1", "CONSOLE": "no"}
    environ |= {"ALLOWED_HOSTS": "pay.example PAY.example"}
    environ["OTEL_EXPORTER_OTLP_HEADERS"] = "Authorization: Bearer hunter2"
    port = int(environ["PLATFORM_PORT"]) + 2
    with socket.create_server(("127.0.0.1", port)):
        found = faults(environ | {"USERS_FILE": str(tmp_path / "users.json")})
    all_services = readers_of("HTTP_HOST")
    expected = {
        ".env, line 1: is not NAME=value": "",
        ".env: LOG_LEVL is not a setting": "did you mean LOG_LEVEL?",
        f"port {port} (core-api) is held by ": "",
        "REDIS_URL=<secret>": f"[{readers_of('REDIS_URL')}]",
        "QUEUE_LIMIT='many'": "[core-api]",
        "PSP_URL=<secret>": "[psp-connector]",
        "WORKERS='0'": f"[{readers_of('WORKERS')}]",
        "HTTP_HOST='::1': must be 127.0.0.1": f"[{all_services}, router]",
        "ALLOWED_HOSTS='pay.example PAY.example'": f"[{all_services}]",
        "OTEL_EXPORTER_OTLP_HEADERS=<secret>: must be name=value": f"[{all_services}]",
        "CONSOLE='no': must be on or off": "[the stack]",
        "USERS_FILE": "[auth-api]",
    }
    for begin, end in expected.items():
        [line] = [line for line in found if line.startswith(begin)]
        assert line.endswith(end)
    assert len(found) == len(expected)
    assert any(f"pid {os.getpid()}: start with PLATFORM_PORT=" in line for line in found)
    assert len(faults(environ | {"PLATFORM_PORT": "x"})) == len(expected) - 1


def test_a_redis_that_refuses_writes_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    """It is reachable, so the fault has Redis' own reason; a full one has payments to charge."""
    port = free_ports(1)
    url = f"redis://127.0.0.1:{port}/0"
    for options, reason in {
        ("--min-replicas-to-write", "1"): "NOREPLICAS ",
        ("--rename-command", "EVALSHA", ""): "unknown command 'EVALSHA'",
    }.items():
        with redis_server(tmp_path / "redis", port, *options):
            [fault] = faults(environ | {"REDIS_URL": url})
        assert fault.startswith(f"REDIS_URL='{url}': Redis refuses the services: {reason}")
    with redis_server(tmp_path / "redis", port), redis.Redis(port=port) as client:
        assert faults(environ | {"REDIS_URL": url}) == []  # which stores the partitions
        client.config_set("min-replicas-to-write", "1")
        assert "NOREPLICAS" in faults(environ | {"REDIS_URL": url})[0]
        client.config_set("min-replicas-to-write", "0")
        client.config_set("maxmemory", "1")
        assert faults(environ | {"REDIS_URL": url}) == []


@pytest.mark.parametrize("port_is", ["closed", "silent", "another server's"])
def test_an_unreachable_redis_is_reported_within_3_s(environ: dict[str, str], port_is: str) -> None:
    """It may refuse, hang or be another server; the fault has no password."""
    with socket.create_server(("127.0.0.1", 0)) as server, receiver() as http:
        port = int(http.endpoint.rpartition(":")[2])
        if port_is != "another server's":
            port = server.getsockname()[1]
        if port_is == "closed":
            server.close()
        started = time.monotonic()
        [fault] = faults(environ | {"REDIS_URL": f"redis://:hunter2@127.0.0.1:{port}/0"})
    assert time.monotonic() - started < 3
    address = f"redis://<secret>@127.0.0.1:{port}/0"
    assert fault.startswith(f"REDIS_URL='{address}': Redis is unavailable: ")
    assert "hunter2" not in fault


def test_faults_end_it_with_ex_config(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 78, faults go to standard error; a typo in the shell is a warning."""
    assert preflight.main(environ | {"PLATFORM_PORT": "x", "PSP_ATTEMPT_MAX": "3"}) == 78
    out, err = capsys.readouterr()
    typo = "in the environment: PSP_ATTEMPT_MAX is not a setting; did you mean PSP_ATTEMPTS_MAX?"
    assert out == f"preflight: warning: {typo}\n"
    assert err.startswith("preflight: the stack cannot start\n  PLATFORM_PORT='x': must be")
    assert err.count("\n") == 2


@pytest.mark.parametrize(("offset", "name"), [(55, "redis-5"), (57, "redis-5 bus")])
def test_a_busy_port_of_a_cluster_is_named(environ: dict[str, str], offset: int, name: str) -> None:
    """Ports of nodes and their buses are checked, and the remedy has room for them."""
    first = free_ports(CLUSTER_BLOCK)
    environ |= {"PLATFORM_PORT": str(first), "REDIS_CLUSTER": "1", "PARTITIONS": "4"}
    with socket.create_server(("127.0.0.1", first + offset)):
        [fault] = faults(environ)
        assert faults({**environ, "REDIS_CLUSTER": ""}) == []
    assert fault.startswith(f"port {first + offset} ({name}) is held by")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_with_http_host_0_0_0_0_a_port_in_use_at_any_address_is_named(
    environ: dict[str, str],
) -> None:
    """Not that of Redis, which stays on the loopback. The remedy is free at all addresses."""
    first = int(environ["PLATFORM_PORT"])
    with contextlib.ExitStack() as held:
        for offset in (2, 5, 100):  # core-api, redis, the next block
            held.enter_context(socket.create_server(("127.0.0.2", first + offset)))
        assert faults(environ) == []
        [fault] = faults(environ | {"HTTP_HOST": "0.0.0.0"})
    assert fault.startswith(f"port {first + 2} (core-api) is held by ")
    assert f"pid {os.getpid()}: start with PLATFORM_PORT=" in fault
    assert not fault.endswith(f"={first + 100}")


def test_processes_that_share_a_port_are_named(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two services from different branches, or a service and a node of the cluster."""
    core_api = replace(SERVICES["core-api"], port_offset=SERVICES["redis"].port(10))
    monkeypatch.setitem(LISTENERS, "core-api", core_api)
    [fault] = faults(environ | {"REDIS_CLUSTER": "1", "PARTITIONS": "4"})
    assert fault.startswith("core-api and redis-1 have the same port, ")
    core_api = replace(SERVICES["core-api"], port_offset=SERVICES["auth-api"].port_offset)
    monkeypatch.setitem(LISTENERS, "core-api", core_api)
    [fault] = faults(environ)
    assert fault.startswith("auth-api and core-api have the same port, ")
    assert fault.endswith(
        "is one a copy? else change port_offset in the service.toml of one, then `new sync`"
    )


@pytest.mark.parametrize(
    ("files", "given", "fault"),
    [
        ("", {"REDIS_CLUSTER": "yes"}, "REDIS_CLUSTER='yes': is for the cluster of REDIS_URL; "),
        ("", {"REDIS_CLUSTER": "1"}, "REDIS_CLUSTER='1': is for the cluster of REDIS_URL; "),
        (CLUSTER_FILE, {"REDIS_URL": "redis://127.0.0.1:1/0"}, "--cluster starts nodes of "),
        ("", {"REDIS_CLUSTER": "off"}, ""),
        (CLUSTER_FILE, {"REDIS_CLUSTER": "0"}, ""),
    ],
)
def test_only_the_option_starts_a_cluster(
    environ: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    files: str,
    given: dict[str, str],
    fault: str,
) -> None:
    """REDIS_CLUSTER alone would be of a single Redis, and nothing says that PARTITIONS is missing.

    `doctor` says the same before the first start.
    """
    preflight.main(environ | given | {"PC_CONFIG_FILES": files})
    lines = capsys.readouterr().err.splitlines()[1:]
    assert [line.startswith(f"  {fault}") for line in lines[:1]] == [True] * bool(fault)
    assert not any("PARTITIONS" in line for line in lines)
    if not files:
        found = [item.name for item in settings(current(environ | given), 20_000)]
        assert any(name.startswith("REDIS_CLUSTER=") for name in found) == bool(fault)
        assert not any("PARTITIONS=" in name for name in found)


@pytest.mark.parametrize(
    ("cluster", "required", "remedy"),
    [
        ({}, "1", "set 0, or start with --cluster, which has 1"),
        ({"REDIS_CLUSTER": "1", "PARTITIONS": "4"}, "2", "set 1"),
    ],
)
def test_replicas_that_the_stack_does_not_have_stop_the_start(
    environ: dict[str, str], cluster: dict[str, str], required: str, remedy: str
) -> None:
    """The services would be healthy and accept nothing."""
    environ |= {**cluster, "PLATFORM_PORT": str(free_ports(CLUSTER_BLOCK))}
    [fault] = faults(environ | {"REDIS_REPLICAS_MIN": required})
    assert fault.startswith(f"REDIS_REPLICAS_MIN={required}: ")
    assert fault.endswith(f"nothing would be accepted: {remedy}")
    assert faults(environ | {"REDIS_REPLICAS_MIN": str(int(required) - 1)}) == []


def with_data(folder: Path, *makers: str, size_bytes: int = 442) -> None:
    """The file of a Redis that the services have used; by default without a payment."""
    for maker in makers:
        made = folder / "redis" / maker / "appendonlydir"
        made.mkdir(parents=True, exist_ok=True)
        (made / "appendonly.aof.1.incr.aof").write_bytes(bytes(size_bytes))


def test_another_number_of_partitions_stops_the_start(tmp_path: Path) -> None:
    """The first start with data fixes the number."""
    for count in ("4", "1"):
        assert preflight.other_data(tmp_path, {"PARTITIONS": "16"}) == []
        state.write_partitions(tmp_path, count)
    with_data(tmp_path, ".")
    state.write_partitions(tmp_path, "16")
    [fault] = preflight.other_data(tmp_path, {"PARTITIONS": "16"})
    assert fault.startswith("PARTITIONS=16: the data in")
    assert "have 1; set PARTITIONS=1, or" in fault
    assert preflight.other_data(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("maker", "other", "cluster", "remedy"),
    [
        ("node-3", ".", "", "are those of a Redis Cluster: start with --cluster, or"),
        (".", "node-0", "1", "those of a single Redis: start without --cluster and REDIS_CLUSTER,"),
    ],
)
def test_data_of_the_other_kind_of_redis_stop_the_start(
    tmp_path: Path, maker: str, other: str, cluster: str, remedy: str
) -> None:
    """Even with the same number of partitions, and if the other kind has run without data.

    That is what an external Redis leaves. With data of both kinds, each has its own.
    """
    state.write_partitions(tmp_path, "16")
    environ = {"PARTITIONS": "16", "REDIS_CLUSTER": cluster}
    with_data(tmp_path, ".", "node-0", size_bytes=89)
    assert preflight.other_data(tmp_path, environ) == []
    with_data(tmp_path, maker)
    [fault] = preflight.other_data(tmp_path, environ)
    assert remedy in fault
    assert preflight.other_data(tmp_path, environ | {"REDIS_URL": "redis://h"}) == []
    assert preflight.other_data(tmp_path, environ | {"REDIS_CLUSTER": "" if cluster else "1"}) == []
    with_data(tmp_path, other)
    assert preflight.other_data(tmp_path, environ) == []
