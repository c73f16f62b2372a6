"""Updates deploy/compose.yaml, the stack of container images.

A service's own networks are `router-NAME`, if the router routes to it, and `NAME-OTHER` for each
service that it needs.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from devtools import settings
from devtools.catalog import PYTHON, SERVICES, Service
from devtools.new import render
from devtools.new.document import Document
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
    stack, used = Document(text), routed()
    shared = {*stack.data["x-logging"]}
    for name, container in stack.data["services"].items():
        if _is_former(name, container, shared):
            _remove(stack, name)
        elif name in PYTHON:
            for variable in _outdated(PYTHON[name], _environment(container, name), shared):
                stack.remove("services", name, "environment", variable)
            if not PYTHON[name].route and PYTHON[name].variable not in used:
                _disconnect(stack, name)
    stack.add_blocks("services", lambda service: _container(service, shared))
    for service in PYTHON.values():
        _complete(stack, service, shared)
    return stack.text


def _is_former(name: str, container: Mapping[str, Any], shared: Collection[str]) -> bool:
    """Whether it is the container of a service that is gone, not one of the user's own."""
    is_named = re.search(rf"\bplatform/{re.escape(name)}(:|@|$)", str(container.get("image")))
    return (
        name not in SERVICES
        and is_named is not None
        and {*shared} <= {*(container.get("environment") or ())}
    )


def _remove(stack: Document, name: str) -> None:
    """Removes a container and its own networks."""
    _disconnect(stack, name)
    for other in stack.data["services"]:
        _remove_network(stack, f"{name}-{other}", {name, other})
    stack.remove_block("services", name)


def _disconnect(stack: Document, name: str) -> None:
    """Removes the router's way to the service."""
    stack.remove("services", "router", "environment", _address(name))
    stack.remove("services", "router", "depends_on", name)
    _remove_network(stack, f"router-{name}", {name, "router"})


def _remove_network(stack: Document, network: str, members: Collection[str]) -> None:
    """Removes it, unless a further container joined it, which might lose its only network."""
    containers = stack.data["services"].items()
    joined = {name for name, one in containers if network in (one.get("networks") or ())}
    if joined <= {*members}:
        for name in joined:
            stack.remove("services", name, "networks", network)
        stack.remove("networks", network)


def _address(name: str) -> str:
    return f"{name.replace('-', '_').upper()}_ADDRESS"


def _complete(stack: Document, service: Service, shared: Collection[str]) -> None:
    """Adds the service's settings, networks and route to its container, Redis and the router."""
    name, networks = service.name, _networks(service)
    stack.put("services", name, "environment", value="{}")
    stack.put("services", name, "networks", value=f"[{', '.join(networks)}]")
    _environment(stack.data["services"][name], name)
    for variable, value in _variables(service, shared).items():
        stack.put("services", name, "environment", variable, value=value)
    if service.route:
        _connect(stack, service)
    own = stack.data["services"][name]["networks"] or ()
    for other in service.needs:
        if other in stack.data["services"] and f"{name}-{other}" in own:
            stack.put("services", other, "networks", f"{name}-{other}", value="{}")
    for network in networks:
        if network in stack.data["services"][name]["networks"]:
            stack.put("networks", network, value="{internal: true}")


def _connect(stack: Document, service: Service) -> None:
    """Lets the router reach the service."""
    variable, network = _address(service.name), f"router-{service.name}"
    path, router = ("services", "router", "environment"), stack.data["services"]["router"]
    address = f"{service.name}:{_FIRST_PORT + service.port_offset}"
    environment = _environment(router, "router")
    if variable not in environment:
        stack.put(*path, variable, value=address)
    elif re.fullmatch(rf"{service.name}:\d+", environment[variable]):  # one upstream
        stack.replace(*path, variable, value=address)
    stack.put(
        "services", "router", "depends_on", service.name, value="{condition: service_healthy}"
    )
    own = stack.data["services"][service.name]["networks"]
    if not {*own}.intersection(router["networks"]):
        for name in (service.name, "router"):
            stack.put("services", name, "networks", network, value="{}")


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
