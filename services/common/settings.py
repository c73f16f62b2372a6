"""Reads settings from environment variables and reports all errors in one message.

A service subclasses `Settings`; the field `jwt_secret` is read from `JWT_SECRET`. A `Secret` prints
as `<secret>`. Secrets and fields marked FILE_ALLOWED may instead be read from the file named by
`<NAME>_FILE`, as is usual for container images. An empty variable counts as unset, because
`${NAME:-}` in a compose file produces one.
"""

import contextlib
import ipaddress
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from services.common import fields

EXIT_BAD_SETTINGS = 78  # EX_CONFIG of sysexits(3)
_SECRET_FILE_BYTES_MAX = 65_536
_SECRET = "<secret>"  # noqa: S105  printed instead of a secret
_ADDRESS = re.compile(
    r"(\w+://)([^?#]*@)?((?:[\w.-]*|\[[\da-fA-F:.]+\])(?::\d{1,5})?(?:/[\w./~-]*)?)([?#][^@]*)?"
)
ADDRESSES = re.compile(r",(?=\w+://)")
"""Separates the addresses of a setting."""
FILE_ALLOWED = object()
"""Annotation: the value may contain a secret, so `<NAME>_FILE` is supported."""

Port = Annotated[int, Field(ge=1, le=65_535)]


class SettingsError(Exception):
    """One or more invalid settings; the message has one line for each."""

    def __init__(self, faults: Sequence[str], variables: Collection[str] = ()) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
        self.variables = variables


class Secret(SecretStr):
    """A string whose repr is `<secret>`."""

    def _display(self) -> str:
        return _SECRET if self.get_secret_value() else ""


class Settings(BaseModel):
    """Settings common to all processes. Immutable; unknown variables are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    log_format: Literal["console", "json"] = Field(
        default_factory=lambda: "console" if sys.stdout.isatty() else "json",
        description="console for people, json for machines",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least severe level that is logged"
    )
    otel_exporter_otlp_endpoint: Annotated[str, AfterValidator(fields.base_url)] = Field(
        default="", description="where traces are sent by OTLP over HTTP; unset: nowhere"
    )
    otel_exporter_otlp_headers: Annotated[str, AfterValidator(fields.otlp_headers)] = Field(
        default="", repr=False, description="HTTP headers sent with traces, such as an API key"
    )

    @classmethod
    def variables(cls) -> list[str]:
        fields = cls.model_fields.items()
        return [variable for name, field in fields for variable in _names(name, field)]

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Reads the settings; SettingsError has a line for each missing or invalid variable."""
        faults: dict[str, str] = {}
        values: dict[str, str] = {}
        for name, field in cls.model_fields.items():
            variable = name.upper()
            value = environ.get(variable, "")
            if not value and _may_be_in_a_file(field):
                value = _from_file(variable, environ, faults)
            if value:
                values[name] = value
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                faults.setdefault(_variable(item), _fault(cls, item, values))
        if faults:
            raise SettingsError([*faults.values()], faults.keys())
        return settings

    @classmethod
    def explain(cls, origins: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str, str]]:
        """Lists all settings as variable, value and origin, without secrets.

        The first of `origins` that has a variable wins. As in process-compose, an empty variable
        hides later origins and counts as unset.
        """
        first = {k: v for values in reversed([*origins.values()]) for k, v in values.items()}
        wrong: Collection[str] = ()
        try:
            cls.read(first)
        except SettingsError as error:
            wrong = error.variables
        return [
            _explain(_names(name, field), field, origins, is_wrong=name.upper() in wrong)
            for name, field in cls.model_fields.items()
        ]


class HttpSettings(Settings):
    """Settings of a process that serves HTTP."""

    http_port: Port = Field(description="the port to listen on")
    http_host: Annotated[str, AfterValidator(fields.ip_address)] = Field(
        default="127.0.0.1", description="the address to listen on"
    )
    allowed_hosts: Annotated[str, AfterValidator(fields.host_names)] = Field(
        default="", description="additional Host names to serve, separated by spaces"
    )

    def hosts(self) -> re.Pattern[str]:
        """Pattern of allowed Host headers."""
        hosts = [r"localhost", r"platform\.localhost", r"127(\.\d{1,3}){3}", r"\[::1\]"]
        # Health checks of container platforms use an IP address, and DNS rebinding needs a name.
        if not ipaddress.ip_address(self.http_host).is_loopback:
            hosts += [r"\d{1,3}(\.\d{1,3}){3}", r"\[[0-9a-f:.]+\]"]
        hosts += map(re.escape, self.allowed_hosts.split())
        return re.compile(rf"({'|'.join(hosts)})(:\d{{1,5}})?", re.IGNORECASE | re.ASCII)


class ServerSettings(HttpSettings):
    """Settings of a process that serves HTTP with gunicorn."""

    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="number of worker processes"
    )


def _names(name: str, field: FieldInfo) -> list[str]:
    variable = name.upper()
    return [variable, variable + "_FILE"] if _may_be_in_a_file(field) else [variable]


def _may_be_in_a_file(field: FieldInfo) -> bool:
    return is_secret(field) or FILE_ALLOWED in field.metadata


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting is a Secret, or one that may be unset."""
    return field.annotation is Secret or Secret in get_args(field.annotation)


def _may_hold_a_password(field: FieldInfo) -> bool:
    validators = AfterValidator(fields.base_url), AfterValidator(fields.otlp_headers)
    return _may_be_in_a_file(field) or any(rule in field.metadata for rule in validators)


def _from_file(variable: str, environ: Mapping[str, str], faults: dict[str, str]) -> str:
    path = environ.get(f"{variable}_FILE", "")
    if not path:
        return ""
    try:
        # A FIFO would hang, and give its content to the first reader only.
        if Path(path).exists() and not Path(path).is_file():
            raise OSError(0, "not a regular file")  # noqa: TRY301
        with Path(path).open(encoding="utf-8") as file:
            return file.read(_SECRET_FILE_BYTES_MAX).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        # A value that is not an absolute path may be the secret itself.
        text = repr(path) if path.startswith("/") else f"{_SECRET}, not an absolute path"
        faults[variable] = f"{variable}_FILE={text}: the file cannot be read: {reason}"
        return ""


def _variable(item: Any) -> str:
    return str(item["loc"][0]).upper() if item["loc"] else ""


def _fault(cls: type[Settings], item: Any, values: Mapping[str, str]) -> str:
    variable = _variable(item)
    rule = str(item["msg"]).removeprefix("Value error, ")
    if rule.startswith(variable):  # a whole sentence; or of several settings, without a variable
        return rule
    field = cls.model_fields[variable.lower()]
    if item["type"] == "missing":
        return f"{variable} is not set: {field.description}"
    # In an invalid address a password may be anywhere, as after a forgotten scheme.
    text = _SECRET if _may_hold_a_password(field) else repr(values.get(variable.lower(), ""))
    rule = rule.removeprefix("Input should be ")
    return f"{variable}={text}: must be {rule} ({field.description})"


def masked(text: str) -> str:
    """Hides user and query of addresses separated by commas, and all of any other text."""
    matches = map(_ADDRESS.fullmatch, ADDRESSES.split(text))
    return ",".join(_masked(*match.groups("")) if match else _SECRET for match in matches)


def _masked(scheme: str, user: str, server: str, query: str) -> str:
    return scheme + (user and f"{_SECRET}@") + server + (query and f"?{_SECRET}")


def _explain(
    names: Sequence[str],
    field: FieldInfo,
    origins: Mapping[str, Mapping[str, str]],
    *,
    is_wrong: bool,
) -> tuple[str, str, str]:
    is_address = _may_hold_a_password(field)
    is_hidden = is_secret(field) or (is_address and is_wrong)
    for variable in names:
        origin = next((name for name, values in origins.items() if variable in values), "")
        if origin and (value := origins[origin][variable]):
            if variable != names[0]:
                return names[0], _SECRET, f"{origin} ({variable})"
            text = masked(value) if is_address else value
            return names[0], _SECRET if is_hidden else text, origin
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return names[0], *(("", "not set") if default is None else (str(default), "default"))


HttpSettingsT = TypeVar("HttpSettingsT", bound=HttpSettings)


@contextlib.contextmanager
def exit_if_bad() -> Iterator[None]:
    """Prints all settings errors of the block to stderr and exits with 78 (EX_CONFIG)."""
    try:
        yield
    except SettingsError as error:
        lines = "".join(f"  {fault}\n" for fault in error.faults)
        sys.stderr.write(f"invalid settings, nothing was started:\n{lines}")
        raise SystemExit(EXIT_BAD_SETTINGS) from None
