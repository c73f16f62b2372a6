"""Updates the files that are derived from service.toml and the settings classes.

`python -m devtools.new.derived` does so in this code's checkout. A service without a block in a
stack gets one from the template, and a block without a service is removed; changes by hand in a
block stay. Comments and order are kept.
"""

import io
import re
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from devtools import settings
from devtools.address import DEFAULT_PORT, clashes
from devtools.catalog import PYTHON, SERVICES, Service
from devtools.new import CADDYFILE, CONTAINERS, EXAMPLE, INHERITED, PAGE, PROCESS_COMPOSE, render
from devtools.new.unsynced import MODULE, ROUTE, blocks
from services.common.settings import FILE_ALLOWED, is_secret

_IMAGE = re.compile(r"platform/([a-z0-9-]+)")
_FIRST_PORT = 8000  # in the containers; nix/images.nix has it, too


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 10_000  # lines are not wrapped
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _dump(document: Any) -> str:
    text = io.StringIO()
    _yaml().dump(document, text)
    return text.getvalue()


def _flow(**items: Any) -> CommentedMap:
    mapping = CommentedMap(items)
    mapping.fa.set_flow_style()
    return mapping


def _put(mapping: Any, name: str, value: Any) -> None:
    """Inserts before the last item, which holds the comment that follows the mapping."""
    if name not in mapping:
        mapping.insert(max(len(mapping) - 1, 0), name, value)


def _complete(text: str, section: str, block: Callable[[Service], str]) -> Any:
    """The document, with a block for each service that has none, before that of the router."""
    for name, service in PYTHON.items():
        present = blocks(text, section)
        if name not in present:
            at = present["router"]
            text = text[:at] + block(service) + text[at:]
    return _yaml().load(text)


def processes(text: str) -> str:
    """Updates process-compose.yaml."""
    document = _complete(text, "processes", lambda s: render.block(PROCESS_COMPOSE, {"service": s}))
    present = document["processes"]
    for name, process in list(present.items()):
        module = MODULE.search(process.get("command", ""))
        if module and module[1].replace("_", "-") not in SERVICES:
            for other in (present, present["ready"]["depends_on"], present["router"]["depends_on"]):
                other.pop(name, None)
    for name, service in PYTHON.items():
        present[name]["description"] = service.description
        _put(present["ready"]["depends_on"], name, _flow(condition="process_log_ready"))
        if service.route:
            _put(present["router"]["depends_on"], name, _flow(condition="process_started"))
        else:
            present["router"]["depends_on"].pop(name, None)
    return _dump(document)


def caddyfile(text: str) -> str:
    """Updates the router's configuration, which has a line for each route; a new one comes last."""
    missing = {service.variable: service.route for service in SERVICES.values() if service.route}
    lines, end = [], -1
    for line in text.splitlines(keepends=True):
        if match := ROUTE.match(line):
            route = missing.pop(match[2], None)
            if route:
                lines.append(line if match[1] == route else _route(match[2], route))
            end = len(lines)
        else:
            lines.append(line)
    if end < 0:
        raise LookupError("no line `import service`")
    lines[end:end] = [_route(*item) for item in missing.items()]
    return "".join(lines)


def containers(text: str) -> str:
    """Updates deploy/compose.yaml."""
    shared = set(_yaml().load(text)["x-logging"])
    document = _complete(text, "services", lambda service: _container(service, shared))
    services = document["services"]
    for name, container in list(services.items()):
        image = _IMAGE.match(container.get("image", ""))
        if image and image[1] not in SERVICES:
            _remove_container(document, name)
    for name, service in PYTHON.items():
        _add_variables(services[name]["environment"], service, shared)
        if service.route:
            _connect(document, service)
        else:
            _disconnect(document, name)
        for network in services[name]["networks"]:
            _put(document["networks"], network, _flow(internal=True))
        if "redis" in service.needs:
            _join(services["redis"], services[name], f"{name}-redis")
    return _dump(document)


def _connect(document: Any, service: Service) -> None:
    """Lets the router reach a service."""
    container, router = (document["services"][name] for name in (service.name, "router"))
    variable, network = f"{service.variable}_ADDRESS", f"router-{service.name}"
    address = f"{service.name}:{_FIRST_PORT + service.port_offset}"
    _put(router["environment"], variable, address)
    if re.fullmatch(rf"{service.name}:\d+", router["environment"][variable]):  # one upstream
        router["environment"][variable] = address
    _put(router["depends_on"], service.name, _flow(condition="service_healthy"))
    if not {*container["networks"]}.intersection(router["networks"]):
        if network not in container["networks"]:
            container["networks"].append(network)
        _join(router, container, network)


def _disconnect(document: Any, name: str) -> None:
    """Undoes `_connect`."""
    router = document["services"]["router"]
    router["environment"].pop(f"{name.replace('-', '_').upper()}_ADDRESS", None)
    router["depends_on"].pop(name, None)
    _remove_network(document, f"router-{name}")


def _route(variable: str, route: str) -> str:
    address = f"{{${variable}_ADDRESS:127.0.0.1:{variable}_ADDRESS-is-not-set}}"
    return f"\t\timport service {route} {address}\n"


def _remove_container(document: Any, name: str) -> None:
    _disconnect(document, name)
    for network in document["services"].pop(name)["networks"]:
        _remove_network(document, network)


def _remove_network(document: Any, network: str) -> None:
    document["networks"].pop(network, None)
    for service in document["services"].values():
        if network in service.get("networks", ()):
            service["networks"].remove(network)


def _join(service: Any, other: Any, network: str) -> None:
    if network in other["networks"] and network not in service["networks"]:
        service["networks"].append(network)


def _add_variables(environment: Any, service: Service, shared: Collection[str]) -> None:
    """Adds missing settings, and removes those that the service does not read any more."""
    variables = _variables(service, shared)
    others = {name for one in settings.SETTINGS.values() for name in one.variables()}
    for name in [name for name in environment if name not in (*shared, *variables)]:
        # Not a variable of a library, which was added by hand.
        is_setting = name in others or name.startswith(f"{service.variable}_")
        if is_setting and environment[name] in {_passed(name), _secret(name.removesuffix("_FILE"))}:
            environment.pop(name)
    for name, value in variables.items():
        _put(environment, name, value)


def _passed(name: str) -> str:
    return f"${{{name}:-}}"


def _secret(name: str) -> str:
    return f"/run/secrets/{name.lower().replace('_', '-')}"


def _variables(service: Service, shared: Collection[str]) -> dict[str, str]:
    """A container's own variables: its settings, with secrets as files."""
    variables: dict[str, str] = {}
    for name, field in service.settings().model_fields.items():
        variable = name.upper()
        # The headers may hold a key, which `docker inspect` would show.
        if variable in {"HTTP_PORT", "HTTP_HOST", "OTEL_EXPORTER_OTLP_HEADERS", *shared}:
            continue
        if not is_secret(field):
            variables[variable] = _passed(variable)
        if is_secret(field) or FILE_ALLOWED in field.metadata:
            variables[f"{variable}_FILE"] = _secret(name)
    return dict(sorted(variables.items()))


def _container(service: Service, shared: Collection[str]) -> str:
    environment = _variables(service, shared)
    networks = [f"router-{service.name}"] if service.route else []
    facts = {
        "service": service,
        "environment": environment,
        "secrets": [v.rpartition("/")[2] for v in environment.values() if "/secrets/" in v],
        "networks": networks + [f"{service.name}-{needed}" for needed in service.needs],
    }
    return render.block("compose.yaml", facts)


MAKERS: Mapping[str, Callable[[str], str]] = {
    PROCESS_COMPOSE: processes,
    CADDYFILE: caddyfile,
    CONTAINERS: containers,
    PAGE: settings.updated,
    EXAMPLE: lambda _: settings.example(),
    INHERITED: lambda _: settings.variables(),
}
"""For each derived file, computes its new text from the current one."""


def main(root: Path) -> None:
    """Rewrites the derived files below `root`."""
    if faults := settings.FAULTS + clashes(DEFAULT_PORT, {}):
        sys.exit("; ".join(faults))
    for name, make in MAKERS.items():
        path = root / name
        before = path.read_text("utf-8")
        if marker := re.search(r"^(?:<{7}|>{7}) .*", before, re.MULTILINE):
            sys.exit(f"{name}: resolve the conflict {marker[0]!r} first")
        try:
            path.write_text(make(before), "utf-8")
        except (YAMLError, LookupError) as error:
            sys.exit(f"{name}: {' '.join(repr(error).split())}")


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2])
