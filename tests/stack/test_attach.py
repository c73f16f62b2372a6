"""Parts of the stack replaced by external ones: a Redis, a PSP, a service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from devtools import checks, environment
from devtools.address import PORT_OFFSETS
from devtools.ready import is_healthy
from services.common.settings import masked
from tests import support
from tests.stack.stack import Stack, running

PASSWORD = "p@ss/word"
IN_AN_ADDRESS = "p%40ss%2Fword"
KEY = "sk_test_of_another_account"
DOCUMENT = (support.ROOT / "docs/configuration.md").read_text()


@dataclass(frozen=True)
class Authority:
    """A certificate for `localhost`, and the private authority that vouches for it."""

    certificate: Path
    key: Path
    root: Path
    https_port: int
    """Where a Caddy with this certificate passes everything on to a second sandbox."""
    key_port: int
    """The same without TLS, and only for who comes with KEY."""
    sandbox: str
    """The second sandbox's own address."""


CADDYFILE = """
{{
	admin off
	skip_install_trust
	auto_https disable_redirects
}}
https://localhost:{https} {{
	tls internal
	reverse_proxy 127.0.0.1:{sandbox}
}}
http://localhost:{plain} {{
	@ours header Authorization "Bearer {key}"
	handle @ours {{
		reverse_proxy 127.0.0.1:{sandbox}
	}}
	handle {{
		respond 401
	}}
}}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """Made by Caddy's built-in certificate authority."""
    folder = tmp_path_factory.mktemp("authority")
    port = support.free_ports(3)
    text = CADDYFILE.format(https=port, plain=port + 1, sandbox=port + 2, key=KEY)
    (folder / "Caddyfile").write_text(text)
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    sandbox = environ | {"HTTP_PORT": str(port + 2), "PYTHONPATH": str(support.ROOT)}
    leaf = folder / "caddy/certificates/local/localhost/localhost.crt"
    made = Authority(
        leaf,
        leaf.with_suffix(".key"),
        folder / "caddy/pki/authorities/local/root.crt",
        port,
        port + 1,
        f"http://127.0.0.1:{port + 2}",
    )
    with (
        support.program(
            ["caddy", "run", "--config", "Caddyfile"],
            environ=environ,
            output=folder / "caddy.log",
            cwd=folder,
        ),
        support.program(
            [sys.executable, "-m", "services.psp_sandbox"],
            environ=sandbox,
            output=folder / "sandbox.log",
        ),
    ):
        # The key is written before the certificate, and the answer comes after both.
        support.wait_until(leaf.exists, seconds_max=60, what="a certificate of Caddy's")
        support.wait_until(lambda: is_healthy(port + 2), seconds_max=60, what="a second sandbox")
        yield made


def captured(sandbox: str, token: str = "") -> int:
    """Number of payments captured by a sandbox."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{sandbox}/_sandbox/payment_intents"
    return len(support.http.get(url, headers=headers).json()["data"])


@contextlib.contextmanager
def redis_with_tls(folder: Path, authority: Authority, port: int) -> Iterator[str]:
    """A Redis that requires TLS and a password; yields its address."""
    command = ["redis-server", "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
    command += ["--tls-cert-file", str(authority.certificate), "--tls-key-file", str(authority.key)]
    command += ["--requirepass", PASSWORD, "--bind", "127.0.0.1", "--dir", str(folder)]
    url = f"rediss://:{IN_AN_ADDRESS}@localhost:{port}/0?ssl_ca_certs={authority.root}"

    def answers() -> bool:
        client = redis.Redis.from_url(url, retry=support.ONE_TRY)
        with contextlib.suppress(redis.ConnectionError), client:
            return bool(client.ping())
        return False

    with support.program(command, environ=os.environ, output=folder / "log", cwd=folder):
        support.wait_until(answers, seconds_max=60, what="a Redis with TLS")
        yield url


def test_external_redis_and_psp(tmp_path: Path, authority: Authority) -> None:
    """They are reached by verified TLS with password and key; the stack's own are idle."""
    before, port = captured(authority.sandbox), support.free_ports(1)
    psp = f"http://localhost:{authority.key_port}"
    with (
        redis_with_tls(tmp_path, authority, port) as url,
        running(REDIS_URL=url, PSP_URL=psp, PSP_API_KEY=KEY) as stack,
    ):
        assert stack.ended(stack.pay().json()["id"])["status"] == "captured"
        assert captured(authority.sandbox) == before + 1
        with redis.Redis.from_url(url) as elsewhere:
            assert len(list(elsewhere.scan_iter("transaction:*"))) == 1
        with stack.redis() as own:
            assert own.dbsize() == 0
        sandbox = f"http://127.0.0.1:{stack.port + PORT_OFFSETS['psp-sandbox']}"
        assert captured(sandbox, (stack.state / "sandbox-token").read_text().strip()) == 0
        logs = "".join(log.read_text() for log in (stack.state / "logs").iterdir())
        assert [secret for secret in (PASSWORD, IN_AN_ADDRESS, KEY) if secret in logs] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("localhost", "127.0.0.1"), "not valid for '127.0.0.1'"),
        (("ssl_ca_certs=", "client_name=x#"), "unable to get local issuer certificate"),
        ((IN_AN_ADDRESS, "wrong"), "invalid username-password pair"),
    ],
)
def test_a_redis_that_cannot_be_used_stops_the_start(
    tmp_path: Path, authority: Authority, change: tuple[str, str], reason: str
) -> None:
    """A wrong host name, authority or password is reported before the start."""
    port = support.free_ports(1)
    with redis_with_tls(tmp_path, authority, port) as url:
        changed = url.replace(*change)
        [fault] = checks.unreachable_redis({"REDIS_URL": changed})
    assert fault.startswith(f"REDIS_URL='{masked(changed)}': Redis is unreachable: ")
    assert reason in fault
    assert IN_AN_ADDRESS not in fault


def test_a_psp_that_cannot_be_verified_is_sent_nothing(authority: Authority) -> None:
    """TLS is always verified, so neither payment nor key goes to an unverified server."""
    before = captured(authority.sandbox)
    where = f"https://localhost:{authority.https_port}"
    with running(PSP_URL=where, PSP_API_KEY=KEY, PSP_ATTEMPTS_MAX="2") as stack:
        ended = stack.ended(stack.pay().json()["id"])
        assert (ended["status"], ended["attempts"]) == ("failed", 2)
        assert captured(authority.sandbox) == before
    # With the authority known the request succeeds: so it was the authority that failed.
    trusting = ssl.create_default_context(cafile=str(authority.root))
    assert httpx.get(f"{where}/health", verify=trusting).status_code == 200


def test_services_from_the_debugger(stack: Stack) -> None:
    """After `process stop`, a module run as in .vscode/launch.json processes payments."""
    text = (support.ROOT / ".vscode/launch.json").read_text()
    text = text.replace("${workspaceFolder}/.state", str(stack.state))
    text = re.sub(r"\b800(\d)\b", lambda found: str(stack.port + int(found[1])), text)
    found = {one["name"]: one for one in json.loads(text)["configurations"]}
    assert found.keys() == environment.SETTINGS.keys()
    _take_the_place(
        stack,
        {
            name: ([sys.executable, "-m", one["module"]], {"PATH": os.environ["PATH"]} | one["env"])
            for name, one in found.items()
        },
    )


def test_a_service_typed_in_the_shell(stack: Stack) -> None:
    """The documented line works unchanged in a shell of the checkout."""
    [line] = re.findall(r"^\$ (\(.* python -m services\.core_api\))$", DOCUMENT, re.MULTILINE)
    _take_the_place(stack, {"core-api": (["bash", "-c", line], stack.environ)})


def _take_the_place(
    stack: Stack, programs: Mapping[str, tuple[Sequence[str], Mapping[str, str]]]
) -> None:
    with contextlib.ExitStack() as mine:
        for name in programs:
            assert stack.compose("process", "stop", name).returncode == 0
        for name, (command, environ) in programs.items():
            assert not stack.healthy(name)
            output = stack.state / f"my-{name}.log"
            mine.enter_context(support.program(command, environ=environ, output=output))
        stack.wait_healthy()
        assert stack.ended(stack.pay().json()["id"])["status"] == "captured"
    for name in programs:
        assert stack.compose("process", "start", name).returncode == 0
    stack.wait_healthy()


def test_the_doctor_finds_a_healthy_stack_in_order(stack: Stack) -> None:
    """The doctor finds no fault, and names a stopped process with the remedy."""

    def doctor(**more: str) -> tuple[int, list[dict[str, str]]]:
        done = stack.doctor("--json", **more)
        return done.returncode, json.loads(done.stdout)["findings"]

    code, found = doctor()
    assert (code, [one for one in found if one["status"] == "fault"]) == (0, [])
    ports = [one for one in found if one["section"] == "ports" and one["value"].isdigit()]
    assert list(PORT_OFFSETS) == [one["name"] for one in ports]
    assert all(one["note"].startswith("ours: ") for one in ports), ports
    health = {one["name"]: one["value"] for one in found if one["section"] == "health"}
    assert {name: "pass" for name in PORT_OFFSETS if name != "redis"} == health
    assert [one for one in found if "other settings" in one["note"]] == []
    _, found = doctor(QUEUE_LIMIT="5")
    [note] = [one for one in found if "other settings" in one["note"]]
    assert (note["name"], note["status"]) == ("core-api", "note")
    assert note["note"].endswith(": QUEUE_LIMIT")
    assert stack.compose("process", "stop", "auth-api").returncode == 0
    support.wait_until(lambda: not stack.healthy("auth-api"), what="auth-api to stop")
    code, found = doctor()
    assert code == 1
    [fault] = [one for one in found if (one["section"], one["status"]) == ("ports", "fault")]
    assert fault["name"] == "auth-api"
    assert "platform process start auth-api" in fault["cure"]
    assert stack.compose("process", "start", "auth-api").returncode == 0
    stack.wait_healthy()
