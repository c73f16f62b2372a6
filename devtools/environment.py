"""The variables that the stack gives its processes: ports, addresses, and the state folder's files.

Preflight writes them to `environment` in the state folder, which every command of
process-compose.yaml sources; it checks the services' settings with the same values beforehand.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from devtools.address import redis_settings
from devtools.catalog import CONSOLE, LISTENERS, SERVICES
from devtools.state import sandbox_account


def fixed(first_port: int, state: Path) -> dict[str, str]:
    """Variables derived from the router's port and the state folder; they cannot be set."""
    ports = {service: service.port(first_port) for service in LISTENERS.values()}
    return {
        "PLATFORM_PORT": str(first_port),
        **{f"{service.variable}_PORT": str(port) for service, port in ports.items()},
        **{f"{s.variable}_ADDRESS": f"127.0.0.1:{port}" for s, port in ports.items() if s.route},
        "SANDBOX_DATABASE": str(state / "psp-sandbox.sqlite"),
        "SANDBOX_TOKEN": "",
        "SANDBOX_TOKEN_FILE": str(state / "sandbox-token"),
    }


def defaults(first_port: int, state: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that the stack sets unless the user does; traces go to the console."""
    has_console = environ.get("CONSOLE") != "off"
    # The checkout's, even if the code is in the store: `services.auth_api.users` changes this one.
    users = Path(environ.get("PLATFORM_CHECKOUT", ""), "services", "auth_api", "users.json")
    has_users = os.path.isfile(users)  # noqa: PTH113 - never raises
    sandbox = SERVICES["psp-sandbox"].url(first_port)
    other_name = sandbox.replace("127.0.0.1", "localhost")
    is_sandbox = environ.get("PSP_URL", "").lower().rstrip("/") in {"", sandbox, other_name}
    return {
        "JWT_SECRET_FILE": str(state / "jwt-secret"),
        "LOG_FORMAT": "console",  # set in process-compose.yaml for all processes
        "REDIS_URL_FILE": str(state / "redis-url"),
        "PSP_URL": sandbox,
        **({"USERS_FILE": str(users)} if users.is_absolute() and has_users else {}),
        # The account belongs to the state folder, which holds the sandbox's charges, not to its
        # address, whose port may change.
        **({"PSP_ACCOUNT": sandbox_account(state)} if is_sandbox else {}),
        **({"OTEL_EXPORTER_OTLP_ENDPOINT": CONSOLE.url(first_port)} if has_console else {}),
    }


def script(first_port: int, state: Path, environ: Mapping[str, str]) -> str:
    """The file's text: shell assignments that export each variable."""
    lines = ["# Written by preflight at each start, for the commands of process-compose.yaml."]
    unset = {n: v for n, v in defaults(first_port, state, environ).items() if not environ.get(n)}
    exported = fixed(first_port, state) | redis_settings(environ) | unset
    lines += [f"export {n}={shlex.quote(v)}" for n, v in exported.items()]
    return "\n".join(lines) + "\n"


def environment(
    service: str, first_port: int, state: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """The environment of one service if the stack is started with `environ`."""
    user = {name: value for name, value in environ.items() if value}
    port = {"HTTP_PORT": str(SERVICES[service].port(first_port))}
    return {**defaults(first_port, state, environ), **user, **fixed(first_port, state), **port}
