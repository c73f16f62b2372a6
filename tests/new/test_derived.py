"""`new sync`: the derived files follow each service.toml, and what was written by hand stays."""

from dataclasses import replace

import pytest
import yaml

from devtools import settings
from devtools.catalog import PYTHON, SERVICES, Service
from devtools.new import CADDYFILE, CONTAINERS, PROCESS_COMPOSE, containers, derived, unsynced
from tests.support import ROOT


def test_a_changed_route_is_in_the_caddyfile() -> None:
    """`new sync` replaces the previous prefix of a service."""
    text = (ROOT / CADDYFILE).read_text()
    assert derived.caddyfile(text.replace("service transactions", "service former")) == text
    two = text.replace("CORE_API_ADDRESS-is-not-set}", "8002} 127.0.0.1:9002")
    assert derived.caddyfile(two.replace("service transactions", "service former")) == two != text
    for former in ("port", "s"):  # also in the words before it
        changed = text.replace("service transactions ", f"service {former} ")
        assert derived.caddyfile(changed) == text


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
    stack = (ROOT / PROCESS_COMPOSE).read_text()
    assert containers.updated(text) == text  # the Caddyfile refers to it
    assert derived.processes(stack) == stack
    for module in (containers, derived):
        monkeypatch.setattr(module, "routed", set)
    without = containers.updated(text)
    assert "AUTH_API_ADDRESS" not in without
    assert "router-auth-api" not in without
    changed = yaml.safe_load(derived.processes(stack))
    assert "auth-api" not in changed["processes"]["router"]["depends_on"]
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


def test_a_service_may_need_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """process-compose names it; `new sync` updates the rest."""
    text, service = (ROOT / CONTAINERS).read_text(), SERVICES["core-api"]
    monkeypatch.setitem(PYTHON, "core-api", replace(service, needs=("redis", "former")))
    shared = text.replace("core-api-redis]", "core-api-redis, core-api-former]")
    made = yaml.safe_load(containers.updated(shared))
    assert made["services"]["core-api"] == yaml.safe_load(shared)["services"]["core-api"]
