"""Which ports the stack uses and which settings its services will be given.

services/environment.sh says the same to the processes; a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devtools.address import PORT_OFFSETS
from services.auth_api.settings import AuthSettings
from services.core_api.settings import CoreSettings
from services.psp_connector.settings import ConnectorSettings
from services.psp_sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from services.common.settings import Settings

SETTINGS: Mapping[str, type[Settings]] = {
    "auth-api": AuthSettings,
    "core-api": CoreSettings,
    "psp-connector": ConnectorSettings,
    "psp-sandbox": SandboxSettings,
}

# Variables that no settings class has: of the stack, and of merchant.
OTHER_VARIABLES: Mapping[str, str] = {
    "PLATFORM_PORT": "the router's port; the others follow",
    "PLATFORM_STATE": "data, logs, secret and socket",
    "RELOAD": "1 restarts a service when its code is saved, 0 does not",
    "PLATFORM_URL": "where merchant finds the router",
    "MERCHANT_PASSWORD": "what merchant asks for tokens with",
}
# Set by the flake's scripts and by nixw, for each other.
INTERNAL_VARIABLES = ("PLATFORM_CHECKOUT", "PLATFORM_CODE", "PLATFORM_DROPPED")
# Set for each process by the stack, whatever the environment says.
SET_BY_THE_STACK: Mapping[str, str] = {
    "HTTP_PORT": "each service's port follows PLATFORM_PORT: set that",
    "SANDBOX_DATABASE": "the sandbox's file is in the state folder",
    "SANDBOX_TOKEN": "the sandbox's token is in the state folder",
    "SANDBOX_TOKEN_FILE": "the sandbox's token is in the state folder",
}


def environment(
    service: str, first_port: int, state: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """What the stack adds to `environ` for one service."""
    given = {name: value for name, value in environ.items() if value}
    return {
        "JWT_SECRET_FILE": str(state / "jwt-secret"),
        "REDIS_URL_FILE": str(state / "redis-url"),
        "PSP_URL": f"http://127.0.0.1:{first_port + PORT_OFFSETS['psp-sandbox']}",
        **given,
        "HTTP_PORT": str(first_port + PORT_OFFSETS[service]),
    }
