"""The program: its logs, its settings and its configuration."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools.catalog import SERVICES
from devtools.loglines import parse as parse_line
from tests.http_service import Reply
from tests.router.helpers import CONFIG, Router, environment, platform_in
from tests.support import ROOT, call, script, wait_until


def test_the_access_log_has_one_line_per_request(router: Router) -> None:
    """The JSON line has status, sizes, duration, method, path and client."""
    router.request("POST", "/auth/token", b"{}", {"X-Request-Id": "log-1"})
    line = router.log_of("log-1")
    assert {line["service"] for line in router.log()} == {"router"}
    assert (line["status"], line["size"], line["bytes_read"]) == (200, 2, 2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["time"])
    assert 0 < line["ms"] < 10_000
    request = line["request"]
    assert (request["method"], request["uri"]) == ("POST", "/auth/token")
    assert request["remote_ip"] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/%C2%9B31m", "/auth/%C2%9B31m", "/%E2%80%AEx", "/%7F"])
def test_a_logged_path_cannot_steer_a_terminal(router: Router, path: str) -> None:
    """Characters that JSON does not escape, such as U+009B, are not in the log."""
    router.request("GET", path, headers={"X-Request-Id": path.replace("%", "-").replace("/", "-")})
    line = router.log_of(path.replace("%", "-").replace("/", "-"))
    assert re.fullmatch(r"[ -~]*\?[ -~]*", line["path"])


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("http://%C2%9B31m/x", "http://%C2%9B31m/x"),
        ("/auth/\x9b31m\u202ex?token=hunter2", "/auth/31mx"),
        ("http://me:hunter2@localhost/auth/x", "localhost/auth/x"),
        ("http:me:hunter2@localhost/auth/x#hunter2", "localhost/auth/x"),
        ("//me:hunter2@localhost/auth/x", "localhost/auth/x"),
        ("/auth/a@example.com", "/auth/a@example.com"),
        ("/auth/http%3A%2F%2Fme%3Ahunter2%40localhost/x", "localhost/x"),
        ("/%2F%2Fhunter2@localhost/xyz", "localhost/xyz"),
        ("/auth//me:hunter2%40localhost/auth/x?token=a@b", "localhost/auth/x"),
    ],
)
def test_a_logged_address_is_harmless(router: Router, target: str, logged: str) -> None:
    """As sent, unescaped: no characters that steer a terminal, no user and no query."""
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {len(target)}\r\n\r\n"
    router.send(head.encode())
    request = router.log_of(str(len(target)))["request"]
    assert request["uri"] == logged
    assert request["host"] in {"localhost", "31m"}
    assert "hunter2" not in str(router.log())


def test_health_checks_are_not_logged(router: Router) -> None:
    """Requests of /health, which come every few seconds, are not logged."""
    router.request("GET", "/health", headers={"X-Request-Id": "probe"})
    router.request("GET", "/nowhere", headers={"X-Request-Id": "after-the-probe"})
    router.log_of("after-the-probe")
    assert [line for line in router.log() if line.get("request_id") == "probe"] == []


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_high_level_hides_requests_but_not_readiness(tmp_path: Path, level: str) -> None:
    """The ready line, which the stack waits for, is logged at each level; requests if they fail."""
    with platform_in(tmp_path, LOG_LEVEL=level) as platform:
        platform.auth.replies["/broken"] = Reply(500)
        for path in ("/auth/x", "/nowhere", "/auth/broken"):
            platform.router.request("GET", path, headers={"X-Request-Id": path.replace("/", "-")})
        platform.router.log_of("-auth-broken")
        events = [line["event"] for line in platform.router.log()]
    assert events.count("serving initial configuration") == 1
    assert events.count("handled request") == 1


@pytest.mark.parametrize("log_format", ["json", "console", ""])
def test_one_setting_for_the_format_of_all_logs(tmp_path: Path, log_format: str) -> None:
    """LOG_FORMAT=console is readable and has the same fields as JSON, also without LOG_LEVEL."""
    with platform_in(tmp_path, LOG_FORMAT=log_format, LOG_LEVEL="") as platform:
        platform.router.request("GET", "/auth/x", headers={"X-Request-Id": "r-17"})
        text = wait_until(
            lambda: [t for t in platform.router.output.read_text().splitlines() if "r-17" in t],
            what="the request's line",
        )[0]
    line = parse_line(text)
    assert line is not None
    assert line.fields.items() >= {
        "service": "router", "event": "handled request", "method": "GET", "path": "/auth/x",
        "status": "200", "request_id": "r-17",
    }.items()  # fmt: skip
    assert (log_format != "console") == text.startswith("{")
    for level, is_shown in {"info": True, "error": False}.items():  # `logs` filters it, too
        command = ["lnav", "-n", "-I", str(ROOT / "devtools/lnav")]
        command += ["-c", f":set-min-log-level {level}", str(platform.router.output)]
        done = call(command, {**os.environ, "HOME": str(tmp_path)})
        assert ("r-17" in done.stdout) == is_shown


def test_no_secret_is_logged_at_any_level(tmp_path: Path) -> None:
    """No header, body or query is logged, even at level debug."""
    headers = {
        name: f"SECRET-{name}"
        for name in ("Authorization", "Cookie", "Idempotency-Key", "X-Api-Key", "Referer")
    }
    with platform_in(tmp_path, LOG_LEVEL="debug") as platform:
        platform.core.replies["/hang-up"] = Reply(None)
        platform.core.replies["/"] = Reply(
            headers=(("Set-Cookie", "SECRET-5"), ("X-Token", "SECRET-6")), body=b"SECRET-7"
        )
        for path in ("/transactions", "/transactions/hang-up", "/nothing"):
            url = f"{path}?token=SECRET-query"
            platform.router.request("POST", url, b'{"token": "SECRET-body"}', headers)
        last = platform.router.request("GET", "/nowhere").headers["X-Request-Id"]
        platform.router.log_of(last)
        text = platform.router.output.read_text()
    assert '"level":"debug"' in text
    assert "SECRET" not in text


def test_files_stay_in_its_own_folder(tmp_path: Path) -> None:
    """The router runs without HOME and writes nothing outside CADDY_STATE."""
    with platform_in(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} - {"cwd", "state", "router.log"} == set()
    assert list((tmp_path / "cwd").iterdir()) == []


def test_a_stop_waits_a_little_for_a_request_and_no_longer(tmp_path: Path) -> None:
    """A request that hangs delays a stop by seconds only."""
    with platform_in(tmp_path) as platform, platform.router.connect() as client:
        platform.auth.replies["/hang"] = Reply(wait_seconds=20)
        client.sendall(b"GET /auth/hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: platform.auth.seen, what="the request at the service")
        started = time.monotonic()
        platform.router.process.terminate()
        assert platform.router.process.wait(10) == 0
        assert time.monotonic() - started < 5


def _caddy(
    *args: str, environ: dict[str, str], config: Path = CONFIG
) -> subprocess.CompletedProcess[str]:
    command = ["caddy", *args, "--adapter", "caddyfile", "--config", str(config)]
    return call(command, environ)


def _adapted(environ: dict[str, str], config: Path = CONFIG) -> Any:
    return json.loads(_caddy("adapt", environ=environ, config=config).stdout)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PORT", None),
        *((f"{one.variable}_ADDRESS", None) for one in SERVICES.values() if one.route),
        ("LOG_LEVEL", "loud"),
        ("HTTP_PORT", "99999"),
        ("CADDY_STATE", None),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, name: str, value: str | None) -> None:
    """A missing or wrong setting stops the router and is named in the error."""
    environ = environment(8000, tmp_path) | {name: value or ""}
    if value is None:
        del environ[name]
    result = _caddy("run", environ=environ)
    assert result.returncode == 1
    named = "missing root path" if name == "CADDY_STATE" else value or name
    assert named in result.stderr


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", ""])
def test_the_configuration_is_valid_without_a_warning(tmp_path: Path, level: str) -> None:
    """It is valid with each LOG_LEVEL, and with a space in the path."""
    result = _caddy(
        "validate", environ=environment(8000, tmp_path / "with a space", LOG_LEVEL=level)
    )
    assert result.returncode == 0, result.stderr
    warned = [line for line in result.stderr.splitlines() if '"level":"warn"' in line]
    assert [line for line in warned if "HOME" not in line] == []


def test_a_route_may_have_the_name_of_a_matcher(tmp_path: Path) -> None:
    """Whatever route `new` takes, such as `metrics`, the configuration is valid."""
    text = CONFIG.read_text()
    names = set(re.findall(r"^\s*@([a-z-]+) ", text, re.MULTILINE))
    assert "metrics" in names
    routes = "".join(f"\t\timport service {name} 127.0.0.1:1\n" for name in sorted(names))
    config = tmp_path / "Caddyfile"
    config.write_text(re.sub(r"(?=^\t\timport service auth)", routes, text, flags=re.MULTILINE))
    adapted = _adapted(environment(8123, tmp_path), config)
    assert all(f"^/{name}(/" in json.dumps(adapted) for name in names)


def test_it_listens_at_one_address_and_nowhere_else(tmp_path: Path) -> None:
    """The router listens on HTTP_HOST and HTTP_PORT only, and has no admin port."""
    config = _adapted(environment(8123, tmp_path, HTTP_HOST="127.0.0.2"))
    servers = config["apps"]["http"]["servers"].values()
    assert [server["listen"] for server in servers] == [["127.0.0.2:8123"]]
    assert config["admin"]["disabled"]
    default = _adapted(environment(8123, tmp_path))["apps"]["http"]["servers"].values()
    assert [server["listen"] for server in default] == [["127.0.0.1:8123"]]


def test_the_timeouts_fit_together(tmp_path: Path) -> None:
    """No valid response is cut off, and no service closes a connection that the router reuses.

    The error texts name two of them.
    """
    (server,) = _adapted(environment(8123, tmp_path))["apps"]["http"]["servers"].values()
    (proxy, *others) = _find(server, "handler", "reverse_proxy")
    assert others
    assert all(proxy["transport"] == other["transport"] for other in others)
    transport, retries = proxy["transport"], proxy["load_balancing"]
    slowest = (
        server["read_timeout"]
        + retries["try_duration"]
        + transport["dial_timeout"]
        + transport["response_header_timeout"]
    )
    assert slowest < server["write_timeout"]
    assert transport["keep_alive"]["idle_timeout"] < 75e9
    assert (server["read_timeout"], transport["response_header_timeout"]) == (10e9, 15e9)
    assert server["protocols"] == ["h1"]


def _find(node: Any, key: str, value: str) -> list[Any]:
    """Every object below `node` whose `key` is `value`."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    here = [node] if isinstance(node, dict) and node.get(key) == value else []
    return here + [found for child in inner for found in _find(child, key, value)]


def test_a_mistake_in_the_caddyfile_ends_the_router(tmp_path: Path) -> None:
    """An empty configuration would serve nothing and open the admin port, also with tracing."""
    stack = yaml.safe_load((ROOT / "process-compose.yaml").read_text())
    command = stack["processes"]["router"]["command"]
    caddy = tmp_path / "caddy"
    caddy.mkdir()
    script(caddy / "caddy", '[ "$1" = run ] && echo started\nexit 3')
    (tmp_path / "environment").write_text("export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9\n")
    environ = {"PATH": f"{caddy}:{os.environ['PATH']}", "PLATFORM_STATE": str(tmp_path)}
    done = call(["bash", "-c", command], environ)
    assert (done.returncode, done.stdout) == (3, "")
