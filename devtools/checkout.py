"""A checkout: its folders, its `.env`, and the origin of each variable."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from devtools import envfile, locate
from devtools.address import has_own_redis, running_redis
from devtools.envfile import EnvFile

# Set for each process by the stack, overriding the environment.
SET_BY_THE_STACK: Mapping[str, str] = {
    "HTTP_PORT": "each service's port follows PLATFORM_PORT: set that",
    "SANDBOX_DATABASE": "the sandbox's file is in the state folder",
    "SANDBOX_TOKEN": "the sandbox's token is in the state folder",
    "SANDBOX_TOKEN_FILE": "the sandbox's token is in the state folder",
}


@dataclass(frozen=True)
class Checkout:
    """A checkout and the environment of the command that runs in it."""

    folder: Path
    environ: Mapping[str, str]

    @cached_property
    def state(self) -> Path:
        """Its state folder, absolute."""
        return locate.state_of(self.folder, self.environ)

    @cached_property
    def dotenv(self) -> EnvFile:
        """Its `.env`; empty if the folder is another project's."""
        is_ours = (self.folder / "process-compose.yaml").is_file()
        return envfile.read(self.folder / ".env") if is_ours else EnvFile()

    @cached_property
    def origins(self) -> dict[str, Mapping[str, str]]:
        """The non-empty variables of the shell, and those of `.env` that it does not override.

        Lowest priority: settings of the stack's own Redis at the last start, which alone says
        whether it is a cluster.
        """

        def effective(values: Mapping[str, str]) -> dict[str, str]:
            return {n: value for n, value in values.items() if value and n not in SET_BY_THE_STACK}

        shell, file = effective(self.environ), effective(self.dotenv.values)
        visible = {name: value for name, value in file.items() if name not in self.environ}
        if has_own_redis({**visible, **shell}):
            for values in (shell, visible):
                values.pop("REDIS_CLUSTER", None)
        last = running_redis(self.state, {**visible, **shell})
        return {"environment": shell, ".env": visible, "the last start": last}

    @cached_property
    def merged(self) -> Mapping[str, str]:
        """The environment of the stack's processes and of commands: the shell overrides `.env`."""
        variables = {k: v for values in reversed(self.origins.values()) for k, v in values.items()}
        folders = {"PLATFORM_CHECKOUT": self.folder.absolute(), "PLATFORM_STATE": self.state}
        return {**variables, **{name: str(path) for name, path in folders.items()}}

    def origin(self, name: str) -> str:
        """Where the variable is set."""
        return next(
            (origin for origin, values in self.origins.items() if name in values), "default"
        )


def of_stack(environ: Mapping[str, str]) -> Checkout:
    """The checkout of a process of the stack, whose working folder may be in the store."""
    folder = environ.get("PLATFORM_CHECKOUT")
    return Checkout(Path(folder), environ) if folder else current(environ)


def current(environ: Mapping[str, str]) -> Checkout:
    """The checkout of the working folder, else PLATFORM_CHECKOUT, else the working folder.

    Raises:
        locate.LocateError: that of the working folder belongs to another user.
    """
    folder = Path.cwd()
    named = Path(environ.get("PLATFORM_CHECKOUT") or folder)
    return Checkout(locate.find_checkout(folder, environ) or named, environ)
