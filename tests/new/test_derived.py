"""`new sync`: the derived files follow each service.toml, and what was written by hand stays."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from devtools import settings
from devtools.catalog import PYTHON, SERVICES, Service
from devtools.new import CADDYFILE, CONTAINERS, PROCESS_COMPOSE, containers, derived, unsynced
from devtools.new.checkout import _runners
from devtools.new.request import Request
from tests.support import ROOT


def test_a_changed_route_is_in_the_caddyfile() -> None:
    """`new sync` replaces the previous prefix of a service."""
    text = (ROOT / CADDYFILE).read_text()
    assert derived.caddyfile(text.replace("service transactions", "service former")) == text
    two = text.replace("CORE_API_ADDRESS-is-not-set}", "8002} 127.0.0.1:9002")
    assert derived.caddyfile(two.replace("service transactions", "service former")) == two != text


def test_what_stands_between_the_routes_stays() -> None:
    """A comment, a route to another program; a line that a merge has doubled goes."""
    text, line = (ROOT / CADDYFILE).read_text(), "\t\timport service transactions"
    mine = "127.0.0.1:9000", "{$MINE_ADDRESS:127.0.0.1:9000}"
    own = "".join(f"\t\timport service mine-{len(to)} {to}\n" for to in mine)
    own = text.replace(line, f"\t\t# mine\n{own}{line}")
    assert derived.caddyfile(own) == own != text
    assert unsynced.routes(own) == unsynced.routes(text)
    [routed] = [one for one in text.splitlines(keepends=True) if one.startswith(line)]
    assert derived.caddyfile(text.replace(routed, routed * 2)) == text
    assert derived.caddyfile(text.replace(routed, "")) == text
    with pytest.raises(LookupError):
        derived.caddyfile("")


def test_a_changed_port_or_route_is_in_the_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The router reaches a service at its port, or not at all; several upstreams stay."""
    text, service = (ROOT / CONTAINERS).read_text(), SERVICES["auth-api"]
    monkeypatch.setitem(PYTHON, "auth-api", replace(service, port_offset=9))
    assert containers.updated(text) == text.replace("auth-api:8001", "auth-api:8009")
    several = text.replace("auth-api:8001", "auth-api:8001 auth-api-2:8001")
    assert containers.updated(several) == several
    monkeypatch.setitem(PYTHON, "auth-api", replace(service, route=""))
    without = containers.updated(text)
    assert "AUTH_API_ADDRESS" not in without
    assert "router-auth-api" not in without
    stack = yaml.safe_load(derived.processes((ROOT / PROCESS_COMPOSE).read_text()))
    assert "auth-api" not in stack["processes"]["router"]["depends_on"]
    monkeypatch.undo()
    routed = yaml.safe_load(containers.updated(without))["services"]
    assert routed["router"] == yaml.safe_load(text)["services"]["router"] | {
        "networks": ["front", "router-core-api", "router-auth-api"]
    }
    assert routed["auth-api"] == yaml.safe_load(text)["services"]["auth-api"]


@pytest.mark.parametrize("name", ["core-api: # takes the money", '"core-api":', "'core-api' :"])
@pytest.mark.parametrize(
    ("file", "section"), [(PROCESS_COMPOSE, "processes"), (CONTAINERS, "services")]
)
def test_a_note_beside_the_name_of_a_block_stays(file: str, section: str, name: str) -> None:
    """The block is found, at a start and by `new sync`, and is not made again."""
    text = (ROOT / file).read_text().replace("\n  core-api:\n", f"\n  {name}\n")
    assert "core-api" in unsynced.blocks(text, section)
    assert yaml.safe_load(derived.MAKERS[file](text)) == yaml.safe_load(text)
    if " :" not in name:
        assert derived.MAKERS[file](text) == text


def test_a_service_may_have_the_name_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its container is a block of its own, below `services:`."""
    name = "front"  # in no literal below, which would be a reference to the service
    extra = replace(SERVICES["auth-api"], name=name, route=name, port_offset=9)
    for services in (PYTHON, SERVICES):
        monkeypatch.setitem(services, name, extra)
    monkeypatch.setattr(Service, "settings", lambda _: settings.SETTINGS["auth-api"])
    made = yaml.safe_load(containers.updated((ROOT / CONTAINERS).read_text()))
    assert made["services"][name]["networks"] == [f"router-{name}"]
    assert made["services"]["router"]["environment"][extra.variable + "_ADDRESS"] == f"{name}:8009"


@pytest.mark.parametrize(
    ("file", "before", "block"),
    [
        (PROCESS_COMPOSE, "processes:\n", "  mine:\n    command: sleep 1\n"),
        (PROCESS_COMPOSE, "processes:\n", "  other:\n    command: python -m services.core_api\n"),
        (CONTAINERS, "services:\n", "  jaeger:\n    image: jaegertracing/jaeger:2\n"),
        (CONTAINERS, "services:\n", "  other:\n    image: platform/core-api:latest\n"),
    ],
)
def test_a_block_of_the_users_own_stays(file: str, before: str, block: str) -> None:
    """A process or container of another program, or a second one of a service."""
    text = (ROOT / file).read_text().replace(f"\n{before}", f"\n{before}{block}\n")
    assert block in text
    assert derived.MAKERS[file](text) == text


@pytest.mark.parametrize(
    "description", ["rates: EUR, USD", "# 1", "*", "{a}", "- a", "'", '"', "<b>", "a\nb", "5", ""]
)
def test_a_block_is_made_with_any_description(
    monkeypatch: pytest.MonkeyPatch, description: str
) -> None:
    """The same text as in service.toml."""
    extra = replace(SERVICES["core-api"], name="extra-api", description=description)
    for services in (PYTHON, SERVICES):
        monkeypatch.setitem(services, "extra-api", extra)
    made = yaml.safe_load(derived.processes((ROOT / PROCESS_COMPOSE).read_text()))
    assert made["processes"]["extra-api"]["description"] == description


def test_a_setting_that_is_gone_is_passed_to_no_container() -> None:
    """Neither its value nor its secret's file; a variable of a library stays."""
    text, line = (ROOT / CONTAINERS).read_text(), "      PSP_ACCOUNT: ${PSP_ACCOUNT:-}\n"
    gone = (
        "      PSP_CONNECTOR_FORMER: ${PSP_CONNECTOR_FORMER:-}\n      JWT_SECRET: ${JWT_SECRET:-}\n"
        "      SANDBOX_TOKEN_FILE: /run/secrets/sandbox-token\n"
    )
    assert containers.updated(text.replace(line, gone + line)) == text
    own = text.replace(
        line,
        "      OWN_FILE: /data/own\n      SSL_CERT_FILE: /run/secrets/ssl-cert\n"
        f"      HTTPS_PROXY: ${{HTTPS_PROXY:-}}\n{line}",
    )
    assert containers.updated(own) == own


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
    "note": (CONTAINERS, "  core-api-redis: {int", "  # mine\n  core-api-redis: {int"),
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
    assert update(edited) == text.replace(before, after)
    assert update(text.replace(before, after)) == text.replace(before, after)


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


def test_a_container_without_networks_gets_its_own() -> None:
    """As one without variables gets its settings; another form is refused."""
    text = (ROOT / CONTAINERS).read_text()
    without = text.replace("    networks: [router-core-api, core-api-redis]\n", "")
    assert yaml.safe_load(containers.updated(without)) == yaml.safe_load(text)
    listed = re.sub(
        r"(?s)(  core-api:.*?environment:\n).*?(    secrets)", r"\1      - A=b\n\2", text
    )
    with pytest.raises(TypeError, match="the environment of core-api must be a mapping"):
        containers.updated(listed)


@pytest.mark.parametrize(
    ("file", "block"),
    [
        (PROCESS_COMPOSE, "  mine:\n    command: exec python -m services.<name>.load\n"),
        (CONTAINERS, "  mine:\n    image: platform/<name>\n"),
    ],
)
def test_a_process_or_container_that_runs_a_service_is_found(
    tmp_path: Path, file: str, block: str
) -> None:
    """It would have no code; the service's own block, and those of other services, do not count."""
    for name in (PROCESS_COMPOSE, CONTAINERS):
        text, router = (ROOT / name).read_text(), "\n  router:\n"
        own = block.replace("<name>", "status") if name == file else ""
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace(router, f"\n{own}{router[1:]}"))
    assert list(_runners(tmp_path, Request("status"))) == [f"mine in {file}"]
    assert not {*_runners(tmp_path, Request("mine")), *_runners(tmp_path, Request("stat"))}
