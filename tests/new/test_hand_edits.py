"""What was written by hand into the derived files, while services come and go."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from devtools import settings
from devtools.catalog import PYTHON, SERVICES, Service
from devtools.new import (
    CADDYFILE,
    CONTAINERS,
    PROCESS_COMPOSE,
    containers,
    derived,
    unsynced,
)
from devtools.new.checkout import _runners
from devtools.new.request import Request
from tests.support import ROOT


@pytest.fixture
def extra(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a further service, with a route and Redis."""
    name = "further-api"
    service = replace(SERVICES["core-api"], name=name, route="further", port_offset=9)
    for services in (PYTHON, SERVICES):
        monkeypatch.setitem(services, name, service)
    known = settings.SETTINGS
    monkeypatch.setattr(Service, "settings", lambda s: known.get(s.name, known["core-api"]))
    return name


def _forget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for services in (PYTHON, SERVICES):
        monkeypatch.delitem(services, name)


_MINE = "    image: platform/mine:latest\n    networks: [core-api-redis]\n\n"
EDITS = {
    "comments": (PROCESS_COMPOSE, "\n  router:\n", "\n  # Our TLS: see the wiki.\n  router:\n"),
    "headings": (CONTAINERS, "\n  router:\n", "\n  # --- ours ---\n\n  # The edge\n  router:\n"),
    "last": (CONTAINERS, "\n# A service reaches", "  # mine\n\n# A service reaches"),
    "image": (CONTAINERS, "\n  router:\n", f"\n  mine:\n{_MINE}  router:\n"),
    "common": (
        PROCESS_COMPOSE,
        "\n  ready:\n",
        "\n  seed:\n    command: exec python -m services.common.seed\n\n  ready:\n",
    ),
    "module": (
        PROCESS_COMPOSE,
        "\n  ready:\n",
        "\n  further-load:\n    command: exec python -m services.further_api.load\n\n  ready:\n",
    ),
    "above": (CONTAINERS, "      TRACING: ", "      # Only with an endpoint.\n      TRACING: "),
    "below": (CONTAINERS, "ME: router\n", "ME: router\n      # RUST_LOG: debug\n"),
    "note": (CONTAINERS, "  core-api-redis: {int", "  # mine\n  core-api-redis: {int"),
    "brackets": (
        PROCESS_COMPOSE,
        "    description: data and queue\n",
        "    description: data and queue\n    environment: [A=1, # why\n B=2]\n",
    ),
    "braces": (CONTAINERS, "  psp: {}\n", "  psp: {\n    # ours\n    name: p # why\n    }\n"),
    "networks": (CONTAINERS, "networks: [front, r", "networks: [front, # ours\n      r"),
    "headers": (
        CONTAINERS,
        "      PSP_ACCOUNT: ${PSP_ACCOUNT:-}\n",
        "      OTEL_EXPORTER_OTLP_HEADERS: ${OTEL_EXPORTER_OTLP_HEADERS:-}\n"
        "      PSP_ACCOUNT: ${PSP_ACCOUNT:-}\n",
    ),
}


@pytest.mark.parametrize(("file", "before", "after"), EDITS.values(), ids=[*EDITS])
def test_changes_by_hand_outlive_a_service(
    extra: str, monkeypatch: pytest.MonkeyPatch, file: str, before: str, after: str
) -> None:
    """Comments, blocks and variables are there, to the byte, after a service has come and gone."""
    update, text = derived.MAKERS[file], (ROOT / file).read_text()
    made = update(text)
    assert made != text
    edited = made.replace(before, after)
    assert edited != made
    regrown = update(text.replace(before, after))
    assert all(line in regrown for line in after.splitlines())
    _forget(extra, monkeypatch)
    for grown in (edited, regrown, text.replace(before, after)):
        assert update(grown) == text.replace(before, after)


@pytest.mark.parametrize("form", ["list", "mapping"])
def test_a_network_goes_only_with_its_last_container(
    extra: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The networks that a removed service shared stay, those of its own go everywhere."""
    own = f"router-{extra}, {extra}-redis"
    text = containers.updated((ROOT / CONTAINERS).read_text())
    shared = text.replace(f"[{own}]", f"[front, psp, core-api-redis, {own}]")
    if form == "mapping":
        shared = text.replace(f"[{own}]", f"{{front: {{aliases: [x]}}, {own}}}")
    assert shared != text
    assert yaml.safe_load(containers.updated(shared)) == yaml.safe_load(shared)
    _forget(extra, monkeypatch)
    assert containers.updated(shared) == (ROOT / CONTAINERS).read_text()
    joined = shared.replace("networks: [psp]", f"networks: [{extra}-redis]", 1)
    left = yaml.safe_load(containers.updated(joined))
    assert left["services"]["psp-sandbox"]["networks"] == [f"{extra}-redis"]
    assert f"{extra}-redis" in left["services"]["redis"]["networks"]
    assert left["networks"][f"{extra}-redis"] == {"internal": True}


@pytest.mark.parametrize("file", [PROCESS_COMPOSE, CONTAINERS])
def test_nothing_waits_for_a_removed_service(
    extra: str, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """A dependency that was written by hand goes, too: the stack would not start."""
    update, text = derived.MAKERS[file], (ROOT / file).read_text()
    line = f"      {extra}:\n        condition: process_started\n        # soon\n"
    parts = re.split(r"(\n  core-api:.*?    depends_on:\n)", update(text), flags=re.DOTALL)
    dependent = parts[0] + parts[1] + line + parts[2]
    assert update(dependent) == dependent
    _forget(extra, monkeypatch)
    assert update(dependent) == text


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        (PROCESS_COMPOSE, "python -m services", "python3 -X dev -m services"),
        (
            PROCESS_COMPOSE,
            "{condition: process_log_ready}",
            "{\n        condition: process_log_ready\n      }",
        ),
        (CONTAINERS, "image: platform", "image: ${REGISTRY:-}platform"),
        (CONTAINERS, "latest", '"1"'),
        (CONTAINERS, "{condition: service_healthy}", "{condition: service_healthy\n      }"),
    ],
)
def test_a_block_goes_in_any_form(
    extra: str, monkeypatch: pytest.MonkeyPatch, file: str, before: str, after: str
) -> None:
    """With flags of Python, from a registry, in several lines."""
    update, text = derived.MAKERS[file], (ROOT / file).read_text()
    made = update(text)
    parts = re.split(rf"(\n  {extra}:.*?\n\n|\n      {extra}: .*?\n)", made, flags=re.DOTALL)
    own = f"\n  {extra}:", f"\n      {extra}:"
    edited = "".join(p.replace(before, after) if p.startswith(own) else p for p in parts)
    assert edited != made
    _forget(extra, monkeypatch)
    assert update(edited) == text


def test_a_block_that_others_refer_to_is_named(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its anchor the rest would be no YAML."""
    made = containers.updated((ROOT / CONTAINERS).read_text())
    head, block = made.split(f"\n  {extra}:")
    block = block.replace("environment:", "environment: &own", 1)
    mine = "\n  mine:\n    environment: *own\n\n  router:"
    _forget(extra, monkeypatch)
    with pytest.raises(
        LookupError, match=f"change services.{extra} by hand: .*alias: environment: .own"
    ):
        containers.updated(f"{head}\n  {extra}:{block}".replace("\n  router:", mine))


def test_a_route_in_a_block_of_the_users_own_stays(extra: str) -> None:
    """It is a route like the others; a new one is not put there."""
    text, line = (ROOT / CADDYFILE).read_text(), "\t\timport service transactions"
    wrapped = text.replace(line, f"\t\troute /transactions/* {{\n\t{line}", 1)
    wrapped = re.sub(r"(\t\t\timport service .*\n)", r"\1\t\t}\n", wrapped)
    assert unsynced.routes(wrapped) == unsynced.routes(text)
    made = derived.caddyfile(wrapped)
    new = f"\t\timport service {PYTHON[extra].route} "
    assert [one for one in made.splitlines() if not one.startswith(new)] == wrapped.splitlines()
    assert f"_API_ADDRESS-is-not-set}}\n{new}" in made


def test_a_container_without_networks_gets_its_own() -> None:
    """As one without variables gets its settings; another form is refused."""
    text = (ROOT / CONTAINERS).read_text()
    without = text.replace("    networks: [router-core-api, core-api-redis]\n", "")
    assert yaml.safe_load(containers.updated(without)) == yaml.safe_load(text)
    waits = re.sub(
        r"(depends_on:)\n      auth-api: .*\n      core-api: .*\n", r"\1 [auth-api]\n", text
    )
    assert containers.updated(waits) == waits.replace("[auth-api]", "[auth-api, core-api]") != text
    bare = re.sub(r"(?s)(  core-api:.*?)    environment:\n.*?(    secrets)", r"\1\2", text)
    made = yaml.safe_load(containers.updated(bare))["services"]["core-api"]["environment"]
    own = yaml.safe_load(text)["services"]["core-api"]["environment"]
    assert made == {name: own[name] for name in made}
    assert "QUEUE_LIMIT" in made
    listed = re.sub(
        r"(?s)(  core-api:.*?environment:\n).*?(    secrets)", r"\1      - A=b\n\2", text
    )
    with pytest.raises(TypeError, match="the environment of core-api must be a mapping"):
        containers.updated(listed)


@pytest.mark.parametrize(
    ("file", "block"),
    [
        (PROCESS_COMPOSE, "  mine:\n    command: exec python -m services.<name>.load\n"),
        (PROCESS_COMPOSE, '  mine:\n    entrypoint: ["python", "-m", "services.<name>"]\n'),
        (PROCESS_COMPOSE, "  mine:\n    command: curl 127.0.0.1:$<NAME>_PORT/health\n"),
        (CONTAINERS, "  mine:\n    image: platform/<name>\n"),
        (CONTAINERS, "  mine:\n    image: x\n    environment: {URL: http://<name>:8008}\n"),
    ],
)
def test_a_process_or_container_that_runs_or_calls_a_service_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, block: str
) -> None:
    """It would not work; the service's own block, and those of other services, do not count."""
    for name in (PROCESS_COMPOSE, CONTAINERS):
        text, router = (ROOT / name).read_text(), "\n  router:\n"
        own = block.replace("<name>", "status").replace("<NAME>", "STATUS") if name == file else ""
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace(router, f"\n{own}{router[1:]}"))
    assert list(_runners(tmp_path, Request("status"))) == [f"mine in {file}"]
    assert not {*_runners(tmp_path, Request("mine")), *_runners(tmp_path, Request("stat"))}
    monkeypatch.setitem(SERVICES, "core-api", replace(SERVICES["core-api"], needs=("status",)))
    assert next(_runners(tmp_path, Request("status"))) == "services/core_api/service.toml"
