"""Auth API settings, read from environment variables."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

from services.auth_api.userfile import UsersError, load
from services.common.fields import readable_file
from services.common.tokens import TokenSettings

SHIPPED_USERS = Path(__file__).with_name("users.json")


Network: TypeAlias = IPv4Network | IPv6Network


def _networks(text: str) -> str:
    try:
        for name in text.split():
            ip_network(name)
    except ValueError:
        raise ValueError("networks, such as 10.0.0.0/8, separated by spaces") from None
    return text


def _users_file(path: Path) -> Path:
    try:
        load(readable_file(path))
    except UsersError as error:
        raise ValueError(f"a users file: {error}") from None
    return path


class AuthSettings(TokenSettings):
    """The Auth API's settings."""

    users_file: Annotated[Path, AfterValidator(_users_file)] = Field(
        default=SHIPPED_USERS, validate_default=True, description="the merchants (JSON)"
    )
    # None by default: on one machine, the router and all clients have the same address.
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        default="", description="networks whose X-Forwarded-For is trusted, separated by spaces"
    )

    def proxies(self) -> list[Network]:
        """The networks of `trusted_proxies`."""
        return [ip_network(name) for name in self.trusted_proxies.split()]
