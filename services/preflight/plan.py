"""Which ports the stack uses and which settings its services will be given.

services/environment.sh says the same to the processes; a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.address import PORT_OFFSETS
from services.auth_api.settings import AuthSettings
from services.core_api.settings import CoreSettings
from services.psp_connector.settings import ConnectorSettings
from services.psp_sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from services.settings import Settings

SETTINGS: Mapping[str, type[Settings]] = {
    "auth-api": AuthSettings,
    "core-api": CoreSettings,
    "psp-connector": ConnectorSettings,
    "psp-sandbox": SandboxSettings,
}


def environment(
    service: str, first_port: int, state: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """What the stack adds to `environ` for one service."""
    given = {name: value for name, value in environ.items() if value}
    return {
        "JWT_SECRET_FILE": str(state / "jwt-secret"),
        "REDIS_URL": f"redis://127.0.0.1:{first_port + PORT_OFFSETS['redis']}/0",
        "PSP_URL": f"http://127.0.0.1:{first_port + PORT_OFFSETS['psp-sandbox']}",
        **given,
        "HTTP_PORT": str(first_port + PORT_OFFSETS[service]),
    }
