"""Updates deploy/compose.yaml, the stack of container images.

A service's own networks are `router-NAME`, if the router routes to it, and `NAME-OTHER` for each
service that it needs.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ruamel.yaml.comments import CommentedMap

from devtools import settings
from devtools.catalog import PYTHON, SERVICES, Service
from devtools.new import document, render
from devtools.new.document import flow, flow_list, put
from devtools.new.unsynced import routed
from services.common.settings import FILE_ALLOWED, is_secret

_FIRST_PORT = 8000  # in the containers; nix/images.nix has it, too
# Each container has its own address, and the headers may hold a key, which `docker inspect` would
# show.
_NOT_PASSED = {"HTTP_PORT", "HTTP_HOST", "OTEL_EXPORTER_OTLP_HEADERS"}


def updated(text: str) -> str:
    """The updated text.

    Raises:
        LookupError: a part of the file is missing.
        TypeError: a part of the file has another form.
        YAMLError: it is not YAML.
    """
    stack, used = document.load(text), routed()
    shared = {*stack["x-logging"]}
    for name, container in stack["services"].items():
        if _is_former(name, container, shared):
            text = _without_container(text, name)
        elif name in PYTHON:
            for variable in _outdated(PYTHON[name], _environment(container, name), shared):
                text = document.without(text, "services", name, "environment", variable)
            if not PYTHON[name].route and PYTHON[name].variable not in used:
                text = _without_route(text, name)
    text = document.with_blocks(text, "services", lambda service: _container(service, shared))
    stack = document.load(text)
    for service in PYTHON.values():
        _complete(stack, service, shared)
    return document.changed(text, stack)


def _is_former(name: str, container: Mapping[str, Any], shared: Collection[str]) -> bool:
    """Whether it is the container of a service that is gone, not one of the user's own."""
    is_named = re.search(rf"\bplatform/{re.escape(name)}(:|@|$)", str(container.get("image")))
    return (
        name not in SERVICES
        and is_named is not None
        and {*shared} <= {*(container.get("environment") or ())}
    )


def _without_container(text: str, name: str) -> str:
    text = _without_route(text, name)
    for other in document.load(text)["services"]:
        text = _without_network(text, f"{name}-{other}", {name, other})
    return document.without_block(text, "services", name)


def _without_route(text: str, name: str) -> str:
    text = document.without(text, "services", "router", "environment", _address(name))
    text = document.without(text, "services", "router", "depends_on", name)
    return _without_network(text, f"router-{name}", {name, "router"})


def _without_network(text: str, network: str, members: Collection[str]) -> str:
    """Removes it, unless a further container joined it, which might lose its only network."""
    containers = document.load(text)["services"].items()
    joined = {name for name, one in containers if network in (one.get("networks") or ())}
    if not joined <= {*members}:
        return text
    for name in joined:
        text = document.without(text, "services", name, "networks", network)
    return document.without(text, "networks", network)


def _address(name: str) -> str:
    return f"{name.replace('-', '_').upper()}_ADDRESS"


def _complete(stack: Any, service: Service, shared: Collection[str]) -> None:
    """Adds the service's settings, networks and route to its container, Redis and the router."""
    services, networks = stack["services"], _networks(service)
    container = services[service.name]
    put(container, "environment", CommentedMap())
    put(container, "networks", flow_list(networks))
    for variable, value in _variables(service, shared).items():
        put(_environment(container, service.name), variable, value)
    if service.route:
        _connect(services["router"], container, service)
    for other in service.needs:
        if other in services and f"{service.name}-{other}" in container["networks"]:
            _join(services[other], f"{service.name}-{other}")
    for network in networks:
        if network in container["networks"]:
            put(stack["networks"], network, flow(internal=True))


def _connect(router: Any, container: Any, service: Service) -> None:
    """Lets the router reach the service."""
    variable, network = _address(service.name), f"router-{service.name}"
    address = f"{service.name}:{_FIRST_PORT + service.port_offset}"
    environment = _environment(router, "router")
    put(environment, variable, address)
    if re.fullmatch(rf"{service.name}:\d+", environment[variable]):  # one upstream
        environment[variable] = address
    put(router["depends_on"], service.name, flow(condition="service_healthy"))
    if not {*container["networks"]}.intersection(router["networks"]):
        _join(container, network)
        _join(router, network)


def _join(container: Any, network: str) -> None:
    networks = container["networks"]
    if isinstance(networks, Mapping):  # with aliases or addresses
        put(networks, network, None)
    elif network not in networks:
        networks.append(network)


def _networks(service: Service) -> list[str]:
    """The names of its own networks."""
    networks = [f"router-{service.name}"] if service.route else []
    return networks + [f"{service.name}-{other}" for other in service.needs]


def _environment(container: Any, name: str) -> Any:
    environment = container.get("environment", {})
    if not isinstance(environment, Mapping):
        raise TypeError(f"the environment of {name} must be a mapping, such as `NAME: value`")
    return environment


def _outdated(
    service: Service, environment: Mapping[str, str], shared: Collection[str]
) -> Iterable[str]:
    """The settings that the service does not read any more."""
    known = {name for one in settings.SETTINGS.values() for name in one.variables()}
    kept = {*shared, *_NOT_PASSED, *_variables(service, shared)}
    for name, value in environment.items():
        # Not a variable of a library, which was added by hand.
        is_setting = name in known or name.startswith(f"{service.variable}_")
        is_made = value in {_passed(name), _secret(name.removesuffix("_FILE"))}
        if is_setting and is_made and name not in kept:
            yield name


def _passed(name: str) -> str:
    return f"${{{name}:-}}"


def _secret(name: str) -> str:
    return f"/run/secrets/{name.lower().replace('_', '-')}"


def _variables(service: Service, shared: Collection[str]) -> dict[str, str]:
    """A container's own variables: its settings, with secrets as files."""
    variables: dict[str, str] = {}
    for name, field in service.settings().model_fields.items():
        variable = name.upper()
        if variable in {*_NOT_PASSED, *shared}:
            continue
        if not is_secret(field):
            variables[variable] = _passed(variable)
        if is_secret(field) or FILE_ALLOWED in field.metadata:
            variables[f"{variable}_FILE"] = _secret(name)
    return dict(sorted(variables.items()))


def _container(service: Service, shared: Collection[str]) -> str:
    environment = _variables(service, shared)
    facts = {
        "service": service,
        "environment": environment,
        "secrets": [v.rpartition("/")[2] for v in environment.values() if "/secrets/" in v],
        "networks": _networks(service),
    }
    return render.block("compose.yaml", facts)
