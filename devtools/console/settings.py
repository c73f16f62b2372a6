"""Console settings, read from environment variables that the stack sets."""

from pathlib import Path

from pydantic import Field

from services.auth_api.settings import AuthSettings
from services.common.redis_url import RedisSettings
from services.common.settings import Port, Secret


class ConsoleSettings(RedisSettings):
    """The console's settings. It always listens on 127.0.0.1."""

    http_port: Port = Field(description="the port to listen on")
    platform_port: Port = Field(description="the router's port")
    platform_state: Path = Field(description="logs, and the console's own file")
    pc_socket_path: str = Field(default="", description="process-compose's socket")
    sandbox_token: Secret | None = Field(default=None, description="for the sandbox's faults")
    users_file: Path = Field(
        default=AuthSettings.model_fields["users_file"].default, description="the merchants (JSON)"
    )
    merchant_password: Secret = Field(
        default=Secret("password"), description="the password that Try it logs in with"
    )
